"""Random folders, bytes that follow from a seed, and the root that the pure importer gives a folder."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

from fungistor.dag import Block, Emit, Link, Profile, build_directory, build_symlink, import_file


def noise(seed: int, length: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(length)


def write(folder: Path, name: str, data: bytes) -> Path:
    """A file below a folder, with the folders on the way."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def grow(folder: Path, chance: random.Random, *, files: int, bytes_max: int, depth: int = 3) -> None:
    """Fill a folder: empty, small and larger files, equal files, symbolic links, empty and deep folders."""
    folder.mkdir(exist_ok=True)
    seen: list[bytes] = []
    for number in range(files):
        below = folder
        for _ in range(chance.randrange(depth)):
            below /= f"d{chance.randrange(3)}"
        below.mkdir(parents=True, exist_ok=True)
        name = chance.choice(["a", "Z", "ä", "ß x", "0", "-"]) + str(number)
        kind = chance.randrange(10)
        if kind == 0:
            (below / name).symlink_to(chance.choice(["a0", "../x", "/etc/passwd"]))
        elif kind == 1:
            (below / name).mkdir()
        elif kind == 2 and seen:
            (below / name).write_bytes(chance.choice(seen))
        else:
            data = chance.randbytes(chance.choice([0, 1, 100, chance.randrange(bytes_max)]))
            seen.append(data)
            (below / name).write_bytes(data)


def contents(folder: Path) -> dict[str, bytes | str | None]:
    """What lies below a folder: bytes of files, targets of links, None for folders."""
    found: dict[str, bytes | str | None] = {}
    for base, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(base) / name
            key = str(path.relative_to(folder))
            found[key] = str(path.readlink()) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
    return found


def imported(path: Path, profile: Profile, emit: Emit | None = None) -> Link:
    """The root of a path as the pure importer makes it."""
    take: Emit = emit or _nowhere
    if path.is_symlink():
        return build_symlink(profile, os.fsencode(path.readlink()), take)
    if path.is_dir():
        links = []
        for name in os.listdir(path):
            below = imported(path / name, profile, take)
            links.append(Link(os.fsencode(name), below.cid, below.tsize))
        return build_directory(profile, links, take)
    root = import_file(profile, _cut(path.read_bytes(), profile.chunk_bytes), take)
    return Link(b"", root.cid, root.tsize)


def _cut(data: bytes, step: int) -> Iterator[bytes]:
    return (data[start : start + step] for start in range(0, len(data), step))


def _nowhere(block: Block) -> None:
    """Keep nothing."""
