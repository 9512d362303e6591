"""A member's folder of a million small values: how long it takes to open, and what a key costs in memory."""

from __future__ import annotations

import functools
import shutil
import socket
import time
from pathlib import Path

from benchmarks.network import command
from benchmarks.processes import BenchmarkError, end, free_ports, pss_bytes, serve, tree_of, wait_ready
from benchmarks.record import OURS, ZDB, Key, Record
from benchmarks.setting import Setting

KEYS = 1_000_000
KEY_BYTES = 20
OPEN = "open a folder of a million keys"
MEMORY = "memory a key of 20 bytes"
ANSWER_S = 60.0
_VALUE = b"a small value"
_BATCH = 1_000


class MillionKeys:
    """Part of `wire`: ours stores them, and both open what it left, as the files are the same."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._count = KEYS // (20 if setting.quick else 1)

    def round(self, record: Record) -> None:
        """Measure once."""
        folder = self._setting.folder / "keys"
        empty = self._setting.folder / "no-keys"
        for place in (folder, empty):
            place.mkdir()
        try:
            self._opened(OURS, folder, filling=True)
            for name in (OURS, ZDB) if "zdb" in self._setting.peers else (OURS,):
                _, idle = self._opened(name, empty)
                seconds, memory = self._opened(name, folder)
                record.add(Key("wire", OPEN, name), seconds)
                record.add(Key("wire", MEMORY, name, "memory"), (memory - idle) / self._count, "B")
        finally:
            for place in (folder, empty):
                shutil.rmtree(place)

    def _opened(self, name: str, folder: Path, *, filling: bool = False) -> tuple[float, int]:
        """Open a folder: seconds from before the start to the first answer, and memory then."""
        (port,) = free_ports(1)
        place = ["--data", str(folder / "data"), "--index", str(folder / "index"), "--port", str(port)]
        ours = [*command(), "zdb", *place, "--no-sync"]
        words = ours if name == OURS else [self._setting.peers["zdb"], *place, "--listen", "127.0.0.1"]
        started = time.perf_counter()
        server = serve(words, folder / "log", cwd=folder)
        try:
            wait_ready(functools.partial(_answers, port), [server], folder / "log")
            seconds = time.perf_counter() - started
            memory = pss_bytes(tree_of(server.pid))
            if filling:
                _fill(port, self._count)
            return seconds, memory
        finally:
            end([server])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), ANSWER_S) as client:
            client.sendall(b"*1\r\n$4\r\nPING\r\n")
            return client.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _fill(port: int, count: int) -> None:
    """Store so many values under keys that do not repeat."""
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as client:
        for first in range(0, count, _BATCH):
            numbers = range(first, min(first + _BATCH, count))
            words = (b"%020d\r\n$%d\r\n%b\r\n" % (number, len(_VALUE), _VALUE) for number in numbers)
            client.sendall(b"".join(b"*3\r\n$3\r\nSET\r\n$20\r\n" + word for word in words))
            expected = len(numbers) * (KEY_BYTES + 7)
            got = bytearray()
            while len(got) < expected:
                piece = client.recv(1 << 16)
                if not piece:
                    raise BenchmarkError("the daemon hung up")
                got += piece
            if len(got) != expected or b"-" in got:
                raise BenchmarkError(f"SET: {bytes(got[-100:])!r}")
