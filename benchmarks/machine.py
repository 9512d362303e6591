"""What this machine could do at best: one core's rates of the steps that cannot be left out, and its disk."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.figures import MIB
from benchmarks.record import MACHINE, Key, Record
from fungistor.coding.erasure import encode, engine_name

PIECE_BYTES = MIB
SHARD_BYTES = 256 << 10
DATA_SHARDS, PARITY_SHARDS = 16, 4
SHARE = 5 / 4
"""What a disk is given for each byte of content."""


def describe() -> dict[str, str]:
    """The machine in a few words, for the head of a report."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "memory": f"{memory / (1 << 20):.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "erasure engine": engine_name(),
        "load before": f"{os.getloadavg()[0]:.2f} processes (1 minute)",
    }


class Limits:
    """Measures each limit once a round."""

    name = "limits"

    def __init__(self, folder: Path, work_bytes: int, disk_bytes: int) -> None:
        self._folder = folder
        self._work_bytes = work_bytes
        self._disk_bytes = disk_bytes

    def round(self, _run: int, record: Record) -> None:
        plain = os.urandom(PIECE_BYTES)
        sealed = bytearray(PIECE_BYTES + 16)
        aes = AESGCM(os.urandom(32))
        nonce = bytes(12)
        target = memoryview(bytearray(PIECE_BYTES))
        shards = [os.urandom(SHARD_BYTES) for _ in range(DATA_SHARDS)]
        parity = [memoryview(bytearray(SHARD_BYTES)) for _ in range(PARITY_SHARDS)]

        def copy() -> None:
            target[:] = plain

        self._rate(record, "sha256", PIECE_BYTES, lambda: hashlib.sha256(plain).digest())
        self._rate(record, "AES-256-GCM", PIECE_BYTES, lambda: aes.encrypt_into(nonce, plain, None, sealed))
        self._rate(record, "BLAKE3", PIECE_BYTES, lambda: blake3.blake3(plain).digest())
        code = f"erasure code 16+4 ({engine_name()})"
        self._rate(record, code, DATA_SHARDS * SHARD_BYTES, lambda: encode(DATA_SHARDS, PARITY_SHARDS, shards, parity))
        self._rate(record, "memcpy", PIECE_BYTES, copy)
        self._disk(record, plain)

    def _rate(self, record: Record, step: str, piece: int, action: Callable[[], object]) -> None:
        action()
        rounds = max(1, self._work_bytes // piece)
        started = time.perf_counter()
        for _ in range(rounds):
            action()
        seconds = time.perf_counter() - started
        record.add(Key("limits", step, MACHINE, "rate"), rounds * piece / seconds / 1e6, "MB/s")

    def _disk(self, record: Record, plain: bytes) -> None:
        """Write what an object costs the disk to one file and wait for it: the time, and that to the page cache."""
        size = int(self._disk_bytes * SHARE)
        path = self._folder / "disk.bin"
        os.sync()
        started = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            for _ in range(max(1, size // len(plain))):
                file.write(plain)
            cached = time.perf_counter() - started
            os.fsync(file.fileno())
        synced = time.perf_counter() - started
        path.unlink()
        record.add(Key("limits", "page cache, appending", MACHINE, "rate"), size / cached / 1e6, "MB/s")
        record.add(Key("limits", "disk, appending and fsync", MACHINE, "rate"), size / synced / 1e6, "MB/s")
        record.add(Key("limits", "1.25 x the largest file to the disk", MACHINE), synced)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
