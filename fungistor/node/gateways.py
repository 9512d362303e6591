"""The gateway's worker processes: one listening socket, bound by `up`, served by all of them."""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

from fungistor.errors import FailedError, InvalidError
from fungistor.node.children import Child, Children

READY_WAIT_S = 30.0
DRAIN_WAIT_S = 12.0
"""The workers' own drain is 10 s; then what is left is cut off."""

BACKLOG = 2048
BACKOFF_S = 0.25
BACKOFF_S_MAX = 10.0
HEALTHY_AFTER_S = 30.0
"""A worker that lived this long starts again at once: what ended it is not its start."""

log = logging.getLogger(__name__)


def parse_listen(text: str) -> tuple[str, int]:
    """Take `HOST:PORT`, `[IPV6]:PORT` or `:PORT` (any IPv4 address) apart. Port 0 is any free one.

    Raises: InvalidError.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535 or (":" in host and host[0] != "["):
        raise InvalidError(f"{text!r} is no HOST:PORT", hint="write it like 127.0.0.1:8480; port 0 is any free one")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  # said by who wrote it


def bind_gateway(text: str) -> socket.socket:
    """Listen on `HOST:PORT` before anything else is started, so that a taken port costs nothing.

    Raises: FailedError naming the address and the cause; InvalidError.
    """
    host, port = parse_listen(text)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise FailedError(f"the gateway's host {host} is not known: {error.strerror}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise FailedError(
            f"the gateway cannot listen on {text}: {(error.strerror or str(error)).lower()}",
            hint="give another one with --gateway HOST:PORT; port 0 takes any free one",
        ) from error
    return listener


def gateway_url(listener: socket.socket) -> str:
    """Where a browser on this machine finds the gateway."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"


class Gateways:
    """`count` workers, each replaced when it ends, until `close`."""

    def __init__(
        self, children: Children, listener: socket.socket, words: list[str], count: int, clock: Callable[[], float]
    ) -> None:
        self._children = children
        self._listener = listener
        self._words = words
        self._clock = clock
        self._slots = [_Slot(f"gateway-{number}") for number in range(1, count + 1)]
        self._closing = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start all workers and wait until each serves.

        Raises: FailedError where one does not come up.
        """
        ready = [(slot, self._launch(slot)) for slot in self._slots]
        for slot, pipe in ready:
            _wait_ready(slot, pipe)

    def mend(self) -> bool:
        """Replace workers that ended, each no sooner than its back-off allows. Never more to do at once."""
        for slot in self._slots:
            with self._lock:
                child = slot.child
                if self._closing or child is None or child.alive or self._clock() < slot.not_before:
                    continue
                if slot.ended is None:
                    self._note_end(slot, child)
                    continue
                slot.ended = None
                pipe = self._launch(slot)
            _wait_ready(slot, pipe)
            log.info("%s serves again, as process %d", slot.name, slot.pid)
        return False

    def replace_all(self) -> None:
        """Start every worker anew, one after the other, so that it sees a changed pool. The socket stays open."""
        for slot in self._slots:
            with self._lock:
                if self._closing or slot.child is None:
                    return
                old, pipe = slot.child, self._launch(slot)
            _wait_ready(slot, pipe)
            old.stop(DRAIN_WAIT_S)

    def reload(self) -> None:
        """Have every worker read anew what can be changed while it serves."""
        with self._lock:
            for slot in self._slots:
                if slot.child is not None and slot.child.alive:
                    slot.child.signal(signal.SIGHUP)

    def pids(self) -> list[int]:
        return [slot.pid for slot in self._slots if slot.child is not None and slot.child.alive]

    def close(self) -> None:
        """Let the workers finish what they serve, within a bound, then end them."""
        with self._lock:
            self._closing = True
            children = [slot.child for slot in self._slots if slot.child is not None]
        for child in children:
            child.signal(signal.SIGTERM)
        end = time.monotonic() + DRAIN_WAIT_S
        for child in children:
            if not child.wait_gone(max(0.0, end - time.monotonic())):
                log.warning("%s did not end within %g s and is killed", child.name, DRAIN_WAIT_S)
                child.stop(0.0)

    def _note_end(self, slot: _Slot, child: Child) -> None:
        lived = self._clock() - slot.started
        slot.failures = 0 if lived >= HEALTHY_AFTER_S else slot.failures + 1
        wait_s = min(BACKOFF_S_MAX, BACKOFF_S * 2.0**slot.failures) if slot.failures else 0.0
        slot.ended = child.status
        slot.not_before = self._clock() + wait_s
        log.warning("%s ended with status %s; it is started again in %g s", slot.name, child.status, wait_s)

    def _launch(self, slot: _Slot) -> int:
        """Start a worker and give the pipe that tells when it serves."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        argv = [sys.executable, "-P", "-m", "gateway", *self._words, "--fd", "{0}", "--ready-fd", "{1}"]
        try:
            slot.child = self._children.program(slot.name, argv, [self._listener.fileno(), writing])
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        slot.started = self._clock()
        return reading


class _Slot:
    def __init__(self, name: str) -> None:
        self.name = name
        self.child: Child | None = None
        self.started = 0.0
        self.failures = 0
        self.not_before = 0.0
        self.ended: int | None = None

    @property
    def pid(self) -> int:
        return self.child.pid if self.child is not None else 0


def _wait_ready(slot: _Slot, pipe: int) -> None:
    """Wait for the byte that a worker writes when it serves; it closes the pipe without one where it cannot."""
    child = slot.child
    assert child is not None
    try:
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        if not poll.poll(READY_WAIT_S * 1000):
            child.stop(0.0)
            raise FailedError(f"{slot.name} did not serve within {READY_WAIT_S:g} s")
        if not os.read(pipe, 64):
            child.wait_gone(READY_WAIT_S)
            raise FailedError(
                f"{slot.name} ended with status {child.status} before it served", hint="its own words are above"
            )
    finally:
        os.close(pipe)
