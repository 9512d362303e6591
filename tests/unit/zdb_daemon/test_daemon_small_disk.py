"""A real daemon on a real disk of a few megabytes that is full now and then, of bytes or of files: whatever is asked
then is done or refused in plain words, and nothing that was there before is lost."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.unit.zdb_daemon.harness import Client, Daemon, ErrorReply, Reply, is_root

DISK_BYTES, DISK_FILES = 3 << 20, 140
NAMES = ("default", "user", "seq", "none")
REFUSALS = {
    "Cannot write data right now",
    "Cannot write index right now",
    "Cannot write namespace right now",
    "Cannot delete key (data)",
    "Cannot delete key (index)",
    "Could not create namespace",
    "Could not flush namespace",
    "Could not reload namespace",
    "Could not remove namespace",
}


class SmallDisk:
    """A mounted disk whose room can be set to a page and a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        self._ballast.mkdir()

    def free(self) -> None:
        """Make room."""
        shutil.rmtree(self._ballast)
        self._ballast.mkdir()

    def leave(self, pages: int, files: int) -> None:
        """Fill it up to that many pages and files."""
        self.free()
        with (self._ballast / "bytes").open("wb") as file:
            spare = os.statvfs(self.folder).f_bfree - pages
            if spare > 0:
                os.posix_fallocate(file.fileno(), 0, spare * os.statvfs(self.folder).f_frsize)
        for number in range(os.statvfs(self.folder).f_ffree - files):
            (self._ballast / f"{number}").touch()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    folder.mkdir()
    options = f"size={DISK_BYTES},nr_inodes={DISK_FILES}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here: full disks are tested by refused calls alone")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@dataclass
class World:
    """What must be there, by namespace; None where there is no such namespace."""

    values: dict[str, dict[bytes, bytes] | None] = field(
        default_factory=lambda: {"default": {}, "user": {}, "seq": {}, "none": None}
    )
    refused: int = 0
    done: int = 0

    def check(self, client: Client) -> None:
        for name, values in self.values.items():
            if values is None:
                continue
            select(client, name)
            assert client.call("DBSIZE") == len(values), name
            for key, value in values.items():
                assert client.call("GET", key) == value, (name, key)


def select(client: Client, name: str) -> None:
    password = () if name in ("default", "none") else ("pw",)
    assert client.call("SELECT", name, *password) == b"OK"


def ask(world: World, client: Client, name: str, rng: random.Random) -> None:
    """Ask for something; the world becomes what the reply says."""
    values = world.values[name]
    assert values is not None
    select(client, name)
    word = rng.choice(("SET", "SET", "SET", "DEL", "NSJUMP", "FLUSH", "NSSET", "WAITAOF", "COMPACT", "RELOAD", "NS"))
    if word == "NS":
        # One of its own, and nobody is in it.
        select(client, "default")
        reply = client.call("NSNEW" if world.values["none"] is None else "NSDEL", "none")
        if not isinstance(reply, ErrorReply):
            world.values["none"] = {} if world.values["none"] is None else None
        elif world.values["none"] is not None:
            select(client, "none")
            world.values["none"] = world.values["none"] if client.call("DBSIZE") else {}
    elif word in ("SET", "DEL"):
        reply = change(values, client, word, rng, seq=name == "seq")
    elif word == "FLUSH" and name in ("user", "seq"):
        reply = client.call("FLUSH")
        if not isinstance(reply, ErrorReply) or client.call("DBSIZE") == 0:
            values.clear()
    else:
        reply = client.call(*other(word, name, rng))
    world.done += not isinstance(reply, ErrorReply)
    world.refused += isinstance(reply, ErrorReply)
    # What a pass of compaction ended of it says in its own words.
    assert not isinstance(reply, ErrorReply) or str(reply) in REFUSALS or word == "COMPACT", (word, reply)


def change(values: dict[bytes, bytes], client: Client, word: str, rng: random.Random, *, seq: bool) -> Reply:
    """Store or delete."""
    keys = sorted(values)
    if word == "DEL" and keys:
        key = rng.choice(keys)
        reply = client.call("DEL", key)
        if not isinstance(reply, ErrorReply):
            del values[key]
        return reply
    fresh = b"" if seq else b"k%d" % rng.randrange(40)
    value = rng.randbytes(rng.choice((0, 10, 3000, 5000, 60_000)))
    reply = client.call("SET", rng.choice(keys) if keys and rng.random() < 0.5 else fresh, value)
    if isinstance(reply, bytes):
        values[reply] = value
    return reply


def other(word: str, name: str, rng: random.Random) -> tuple[str, ...]:
    if word == "NSSET" and name != "default":
        return (word, name, "maxsize", f"{rng.randrange(1 << 25, 1 << 30)}")
    return {"COMPACT": ("COMPACT", "1"), "NSJUMP": ("NSJUMP",), "RELOAD": ("RELOAD", name)}.get(
        word, ("WAITAOF", "1", "0", "0")
    )


def begin(client: Client) -> None:
    for name in ("user", "seq"):
        assert client.call("NSNEW", name) == b"OK"
        assert client.call("NSSET", name, "mode", "seq" if name == "seq" else "user") == b"OK"
        assert client.call("NSSET", name, "password", "pw") == b"OK"
        assert client.call("NSSET", name, "public", "0") == b"OK"


def campaign(folder: Path, seed: int, steps: int) -> World:
    """Ask and fill and free and start again by chance; whoever asks last finds room and everything in its place."""
    rng, world = random.Random(seed), World()
    folder.mkdir()
    home = folder / "home"
    home.mkdir()
    with small_disk(folder / "disk") as disk:
        for part in ("data", "index"):
            (disk.folder / part).mkdir()
            (home / part).symlink_to(disk.folder / part)
        flags = ("--datasize", "512k", *(("--sync",) if seed % 2 else ()))
        server = Daemon(home, *flags)
        try:
            client = server.client()
            begin(client)
            for step in range(steps):
                chance = rng.random()
                if chance < 0.35:
                    disk.leave(rng.choice((0, 0, 1, 2, 3, 8)), rng.choice((0, 1, 2, 3, 40)))
                elif chance < 0.45:
                    disk.free()
                if rng.random() < 0.06:
                    if rng.random() < 0.5:
                        server.kill()
                    else:
                        assert server.stop() == 0
                    server = Daemon(home, *flags)
                    client = server.client()
                    assert not any(word in server.log.read_text() for word in ("damaged", "dropped")), (seed, step)
                    world.check(client)
                ask(world, client, rng.choice([name for name in NAMES if world.values[name] is not None]), rng)
                if step % 10 == 9:
                    world.check(client)
            disk.free()
            world.check(client)
            refused = world.refused
            for _ in range(20):
                ask(world, client, rng.choice(("default", "user", "seq")), rng)
            assert world.refused == refused, "there is room"
            server.kill()
            server = Daemon(home, *flags)
            world.check(server.client())
            assert server.stop() == 0
        finally:
            server.kill() if server.process.poll() is None else server.stop()
    return world


@pytest.mark.skipif(not is_root(), reason="mounting a small disk takes root")
@pytest.mark.parametrize("seed", range(2))
def test_a_disk_that_is_full_now_and_then(tmp_path: Path, seed: int) -> None:
    """Stores, deletions, rotations, flushes, properties, namespaces, passes and starts at every degree of fullness."""
    world = campaign(tmp_path / "z", seed, 120)
    assert world.refused > 10
    assert world.done > 20


@pytest.mark.soak
@pytest.mark.skipif(not is_root(), reason="mounting a small disk takes root")
def test_a_disk_that_is_full_now_and_then_at_length(tmp_path: Path) -> None:
    """The long form: a hundred seeds of 300 steps."""
    refused = done = 0
    for seed in range(1000, 1100):
        world = campaign(tmp_path / f"{seed}", seed, 300)
        refused, done = refused + world.refused, done + world.done
    print(
        f"seeds 1000 to 1099 on a disk of 3 MiB: {done} commands done, {refused} refused for want of room, nothing lost"
    )
