"""What a run of benchmarks works with: a folder, sizes, and the peers that are there."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.contenders import Contender
from benchmarks.contents import Tree, random_file, tree
from benchmarks.kubo import Kubo
from benchmarks.network import Network
from benchmarks.record import Record
from benchmarks.zstor import Zstor

PEERS = ("ipfs", "zstor", "zdb", "zdb-nodelay", "nginx", "redis-server", "redis-benchmark", "wrk")

SETTLED_BYTES = 16 << 20
"""Less than this is not worth making ready for."""


class Benchmark(Protocol):
    """One benchmark: each round adds one value to each of its series."""

    name: str

    def round(self, run: int, record: Record) -> None:
        """Measure once."""


@dataclass(slots=True)
class Setting:
    """Made once for all benchmarks of a run."""

    folder: Path
    sizes: tuple[int, ...]
    quick: bool
    peers: dict[str, str]
    """The programs that were found, by name."""
    members: int = 20
    tree_files: int = 46_000
    tree_bytes: int = 720 << 20
    _files: dict[int, Path] = field(default_factory=dict)
    _tree: Tree | None = None

    def file(self, size: int) -> Path:
        """A file of that many random bytes, the same in every round: stores are new instead."""
        if size not in self._files:
            path = self.folder / f"content-{size}.bin"
            random_file(path, size, size)
            self._files[size] = path
        return self._files[size]

    def tree(self) -> Tree:
        """The tree of many files, made when first asked for."""
        if self._tree is None:
            self._tree = tree(self.folder / "tree", self.tree_files, self.tree_bytes, 1)
        return self._tree

    def settle(self, size: int) -> None:
        """Make the machine ready to take about `size` bytes: what was written is on the disk, and memory is at hand.

        A virtual machine gives back memory that it does not use; the first touch of each page then costs its host
        more than writing it. Measured without this, the same `ipfs add` took from 1.5 to 4.8 s.
        """
        os.sync()
        if size < SETTLED_BYTES:
            return
        path, piece = self.folder / "settle.bin", bytes(SETTLED_BYTES)
        with path.open("wb", buffering=0) as file:
            for _ in range(0, size * 3 // 2, len(piece)):
                file.write(piece)
        path.unlink()

    def unsynced(self) -> Network:
        """Our network without syncing."""
        return Network(self.folder, self.members, sync=False)

    def durable(self) -> Network:
        """Our network as it is run."""
        return Network(self.folder, self.members, sync=True)

    def kubo(self) -> Kubo | None:
        """Kubo, if it is there."""
        return Kubo(self.folder, self.peers["ipfs"]) if "ipfs" in self.peers else None

    def zstor(self) -> Zstor | None:
        """zstor, if it and its 0-db are there."""
        if "zstor" not in self.peers or "zdb" not in self.peers:
            return None
        return Zstor(self.folder, self.peers["zstor"], self.peers["zdb"])

    def contenders(self) -> list[Contender]:
        """All stores, new."""
        found: list[Contender | None] = [self.unsynced(), self.kubo(), self.durable(), self.zstor()]
        return [each for each in found if each is not None]


def find_peers() -> dict[str, str]:
    """Look for the peers on PATH."""
    places = {name: shutil.which(name) for name in PEERS}
    return {name: place for name, place in places.items() if place is not None}
