"""The processes of a running network, as seen from `up`: started and ended through the zygote."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import cast

from fungistor.errors import FailedError
from fungistor.keys.files import ROOT_KEY_VARIABLE
from fungistor.node.process import DATAGRAM_BYTES_MAX

KILL_WAIT_S = 5.0
"""From SIGKILL to gone. Longer only where the kernel itself is stuck on a disk."""

HELLO_WAIT_S = 20.0


class Child:
    """One process: its number, whether it is ready, whether it has ended. Thread-safe; made by `Children`."""

    def __init__(self, number: int, name: str, send: Callable[[dict[str, object]], None]) -> None:
        self.number = number
        self.name = name
        self.pid = 0
        self.address = ""
        self.error = ""
        self.status: int | None = None
        self._send = send
        self._changed = threading.Condition()

    @property
    def alive(self) -> bool:
        return self.status is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal through the zygote, which holds a pidfd: it can never reach a stranger with a reused pid."""
        if self.alive:
            self._send({"op": "signal", "child": self.number, "signal": int(number)})

    def wait_ready(self, timeout_s: float) -> str:
        """Wait until the process serves, and give its address.

        Raises: FailedError where it ended or was not ready in time, with its own words where it left some.
        """
        with self._changed:
            # Reports come from two processes: the child's "ready" may be here before the zygote's "started".
            self._changed.wait_for(lambda: (self.address and self.pid) or not self.alive, timeout_s)
            if self.address and self.alive:
                return self.address
            if self.alive:
                raise FailedError(f"{self.name} was not ready after {timeout_s:g} s")
            raise FailedError(self.error or f"{self.name} ended with status {self.status}")

    def wait_gone(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self.alive, timeout_s)

    def stop(self, grace_s: float) -> None:
        """End it: SIGTERM, a grace, SIGKILL. Returns when it is gone.

        Raises: FailedError where even SIGKILL did not end it in time.
        """
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a paused process would keep SIGTERM for later
        if self.wait_gone(grace_s):
            return
        self.signal(signal.SIGKILL)
        if not self.wait_gone(KILL_WAIT_S):
            raise FailedError(f"{self.name} (process {self.pid}) did not end {KILL_WAIT_S:g} s after SIGKILL")

    def told(self, event: str, message: dict[str, object]) -> None:
        """Take a report of the zygote's."""
        with self._changed:
            if event == "started":
                self.pid = cast("int", message["pid"])
            elif event == "ready":
                self.address = str(message["address"])
            elif event == "failed":
                self.error = str(message["error"])
            elif event == "exited":
                self.status = cast("int", message["status"])
            self._changed.notify_all()


class Children:
    """All processes below `up`. `on_exit(child)` is called from the reading thread for each that ends."""

    def __init__(self, on_exit: Callable[[Child], None]) -> None:
        """Start the zygote. To be called from the thread that lasts as long as `up`, since the zygote dies with it.

        Raises: OSError.
        """
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._children: dict[int, Child] = {}
        self._last = 0
        self._hello = threading.Event()
        self._gone = threading.Event()
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            words = [sys.executable, "-P", "-m", "fungistor.node.zygote", str(theirs.fileno()), str(os.getpid())]
            # Blocked until it ignores them: a Ctrl-C while it loads must not end it before `up` says so.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
            try:
                self._zygote = subprocess.Popen(
                    words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=2, env=_environment()
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._reader = threading.Thread(target=self._read, name="children", daemon=True)
        self._reader.start()

    @property
    def zygote_pid(self) -> int:
        return self._zygote.pid

    @property
    def broken(self) -> bool:
        """Whether the zygote, and with it every process, is gone."""
        return self._gone.is_set()

    def wait_broken(self) -> None:
        """Wait until the zygote is gone."""
        self._gone.wait()

    def member(self, name: str, log: str, config: dict[str, object]) -> Child:
        """Fork a member daemon. `config` holds the fields of its DaemonConfig.

        Raises: FailedError.
        """
        return self._start(name, {"op": "member", "log": log, "config": config}, ())

    def program(self, name: str, argv: Sequence[str], descriptors: Sequence[int]) -> Child:
        """Start a program on the same stderr. `{0}`, `{1}` ... in `argv` stand for the descriptors given along.

        Raises: FailedError.
        """
        return self._start(name, {"op": "exec", "log": None, "argv": list(argv)}, descriptors)

    def close(self, grace_s: float = KILL_WAIT_S) -> None:
        """End the zygote, and with it every process that is left. Safe to repeat."""
        with self._lock:
            if self._link.fileno() >= 0:
                with contextlib.suppress(OSError):  # it has closed its end already
                    self._link.shutdown(socket.SHUT_RDWR)
        try:
            self._zygote.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()
        self._reader.join(grace_s)
        self._link.close()

    def _start(self, name: str, request: dict[str, object], descriptors: Sequence[int]) -> Child:
        if not self._hello.wait(HELLO_WAIT_S) or self.broken:
            raise FailedError(
                "the process that starts members did not come up",
                hint="its words are above; `python -m fungistor.zdb.daemon --help` may say more",
            )
        with self._lock:
            self._last += 1
            child = Child(self._last, name, self._send)
            self._children[child.number] = child
        self._send({"child": child.number, "name": name, **request}, descriptors)
        return child

    def _send(self, message: dict[str, object], descriptors: Sequence[int] = ()) -> None:
        content = json.dumps(message).encode()
        if len(content) > DATAGRAM_BYTES_MAX:
            raise FailedError(f"a request of {len(content)} bytes is more than {DATAGRAM_BYTES_MAX}")
        try:
            with self._lock:
                socket.send_fds(self._link, [content], list(descriptors))
        except OSError as error:
            raise FailedError(f"the process that starts members is gone: {error.strerror}") from error

    def _read(self) -> None:
        while True:
            try:
                content = self._link.recv(DATAGRAM_BYTES_MAX)
            except OSError:
                content = b""
            if not content:
                break
            message: dict[str, object] = json.loads(content)
            event = str(message["event"])
            if event == "hello":
                self._hello.set()
                continue
            with self._lock:
                child = self._children.get(cast("int", message["child"]))
            if child is None:
                continue
            child.told(event, message)
            if event == "exited":
                self._forget(child)
        self._gone.set()
        self._hello.set()  # nobody waits for what cannot come
        with self._lock:
            left = list(self._children.values())
        for child in left:
            child.told("exited", {"status": -int(signal.SIGKILL)})
            self._forget(child)

    def _forget(self, child: Child) -> None:
        with self._lock:
            del self._children[child.number]
        self._on_exit(child)


def _environment() -> dict[str, str]:
    """What members and gateways see of the environment: never the root key, which they have no use for."""
    return {name: value for name, value in os.environ.items() if name != ROOT_KEY_VARIABLE}


def wait_until(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.005) -> bool:
    """Wait for what sends no event, such as a state in /proc. True when it came before the time was over."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(every_s)
    return True
