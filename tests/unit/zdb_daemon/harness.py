"""A real daemon process on a free port, and a client small enough to be trusted."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

DEADLINE_S = 60.0

Reply = bytes | int | None | list["Reply"] | Exception


class ErrorReply(Exception):  # noqa: N818
    """A `-...` reply, without the dash."""


class Client:
    """A blocking RESP client over one socket."""

    def __init__(self, address: str) -> None:
        self.name = ""
        if address.startswith("/"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(DEADLINE_S)
            try:
                self.sock.connect(address)
            except OSError:
                self.sock.close()
                raise
        else:
            host, _, port = address.rpartition(":")
            self.sock = socket.create_connection((host, int(port)), timeout=DEADLINE_S)
        self._file = self.sock.makefile("rb")

    def send(self, *words: bytes | str) -> None:
        self.sock.sendall(encode(*words))

    def read(self) -> Reply:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError(line)
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return ErrorReply(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == b"-1":
                return None
            data = self._file.read(int(rest) + 2)
            if len(data) != int(rest) + 2:
                raise EOFError
            return data[:-2]
        assert kind == b"*", line
        return [self.read() for _ in range(int(rest))]

    def call(self, *words: bytes | str) -> Reply:
        """Return the reply; an error reply is returned, not raised."""
        self.send(*words)
        return self.read()

    def error(self, *words: bytes | str) -> str:
        reply = self.call(*words)
        assert isinstance(reply, ErrorReply), reply
        return str(reply)

    def close(self) -> None:
        self._file.close()
        self.sock.close()


def encode(*words: bytes | str) -> bytes:
    raw = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in raw)


class Daemon:
    """One daemon process on a folder."""

    def __init__(self, home: Path, *flags: str, before: Callable[[], None] | None = None) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        self.port_file = home / "port"
        self.port_file.unlink(missing_ok=True)
        self.log = home / "log"
        self._clients: list[Client] = []
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "fungistor.zdb.daemon", "--port", "0"),
                    *("--data", str(home / "data"), "--index", str(home / "index")),
                    *("--port-file", str(self.port_file), *flags),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=before,
            )
        deadline = time.monotonic() + DEADLINE_S
        while not self.port_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
                raise RuntimeError(f"daemon did not start: {self.log.read_text()}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.01)
        text = self.port_file.read_text().split("\n")[0]
        self.address = text if text.startswith("/") else f"127.0.0.1:{text}"

    def client(self) -> Client:
        client = Client(self.address)
        self._clients.append(client)
        return client

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        self._close_clients()

    def stop(self) -> int:
        """End it as an operator does and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE_S)
        self._close_clients()
        return code

    def _close_clients(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()


@contextlib.contextmanager
def daemon(home: Path, *flags: str, before: Callable[[], None] | None = None) -> Iterator[Daemon]:
    """Run a daemon and end it whatever happens."""
    running = Daemon(home, *flags, before=before)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()
        else:
            running.stop()


def is_root() -> bool:
    return os.geteuid() == 0
