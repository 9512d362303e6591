"""A stack without a bound in memory: what a walk of a hostile DAG has still before it may be millions of links."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import IO

CHUNK_ITEMS = 16384
"""Some MiB of Python objects. Twice as many are in memory at most; what is older waits in a file."""


class Pending:
    """Items are byte strings of at most 65535 bytes. The file, made when it is needed, goes with `close`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._items: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._chunks: list[int] = []

    def close(self) -> None:
        """Forget everything."""
        self._items.clear()
        self._chunks.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def push(self, items: Iterable[bytes]) -> None:
        """Put items on top, the last one topmost."""
        self._items.extend(items)
        while len(self._items) > 2 * CHUNK_ITEMS:
            self._spill()

    def pop(self) -> bytes | None:
        """Take the topmost item, None if there is none."""
        if not self._items and self._chunks:
            self._load()
        return self._items.pop() if self._items else None

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - it stays open until `close`
        parts: list[bytes] = []
        for item in self._items[:CHUNK_ITEMS]:
            parts += (len(item).to_bytes(2, "big"), item)
        packed = b"".join(parts)
        self._chunks.append(len(packed))
        self._file.seek(sum(self._chunks[:-1]))
        self._file.write(packed)
        del self._items[:CHUNK_ITEMS]

    def _load(self) -> None:
        assert self._file is not None
        length = self._chunks.pop()
        self._file.seek(sum(self._chunks))
        packed = self._file.read(length)
        position = 0
        while position < length:
            end = position + 2 + int.from_bytes(packed[position : position + 2], "big")
            self._items.append(packed[position + 2 : end])
            position = end
