"""Bits are flipped in every stripe of an object, while it is read and between two runs: nothing wrong is served."""

from __future__ import annotations

import json
import random
import re
import subprocess
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.running import Up, start
from tests.faults.judgement import kill_network
from tests.faults.rot import INDEX, LIVE, RESEALED, Held, choose, shards_of
from tests.faults.world import MIB, fetch_digest, publish, random_file, seed

MEMBERS = ("--members", "20")
READERS = 2


@dataclass(slots=True)
class Readers:
    """Reads an object through the gateway and by `get`, over and over, until told to stop."""

    up: Up
    cid: str
    digest: str
    folder: Path
    reads: int = 0
    wrong: list[str] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Readers:
        self._threads = [threading.Thread(target=self._gateway) for _ in range(READERS)]
        self._threads.append(threading.Thread(target=self._get))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _gateway(self) -> None:
        while not self._stop.is_set():
            if fetch_digest(f"{self.up.gateway}/ipfs/{self.cid}") != self.digest:
                self.wrong.append("the gateway")
            self.reads += 1

    def _get(self) -> None:
        while not self._stop.is_set():
            self.get_once()

    def get_once(self) -> None:
        """One `get` from members; whom it named stands in `named`."""
        out = self.folder / "out"
        done = self.up.command("get", "--no-cache", "--force", self.cid, "-o", str(out))
        if done.returncode != 0 or digest_of(out) != self.digest:
            self.wrong.append(f"get: {done.stderr}")
        self.named.update(re.findall(r"member (\S+) gave a corrupt shard", done.stderr))
        self.reads += 1

    def until_reads(self, more: int) -> None:
        """Wait until that many more reads have ended."""
        goal = self.reads + more
        while self.reads < goal and not self.wrong:
            self._stop.wait(0.01)


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]


def found_by_verify(up: Up, cid: str) -> Counter[str]:
    """How many shards `verify` finds not good, by member."""
    done = up.command("--json", "verify", cid)
    (report,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert report["readable"], done.stdout
    found = Counter({member: sum(map(int, re.findall(r"\d+", told))) for member, told in report["by_member"].items()})
    assert found.total() == report["shards"] - report["good"] == report["missing"] + report["corrupt"], report
    assert done.returncode == (1 if found else 0)
    return found


def expected(flips: list[tuple[Held, str]]) -> Counter[str]:
    """How many shards were flipped, by member."""
    return Counter(held.member for held, _ in flips)


def flip_under_load(up: Up, cid: str, digest: str, folder: Path, rng: random.Random) -> list[tuple[Held, str]]:
    """Flip bits of running members while others read; every flipped shard is found, on the right member."""
    flips = choose(shards_of(up.home, cid), LIVE, rng)
    with Readers(up, cid, digest, folder) as readers:
        readers.until_reads(1)
        for held, what in flips:
            held.flip(what, rng)
        readers.until_reads(READERS + 2)
    assert not readers.wrong, readers.wrong
    assert found_by_verify(up, cid) == expected(flips)
    return flips


def flip_between_runs(
    up: Up, cid: str, digest: str, folder: Path, rng: random.Random
) -> tuple[Up, list[tuple[Held, str]]]:
    """Flip bits of stopped members, some with their checksums made right; the tags, or the data, tell it all."""
    flips = choose(shards_of(up.home, cid), (RESEALED, *INDEX), rng)
    # One stripe's needed shard lies in a way that only its tag can show.
    first = flips[0][0]
    flips[0] = (first, RESEALED)
    assert up.end() == 0, up.log.read_text()
    for held, what in flips:
        held.flip(what, rng)
    up = start(up.home, MEMBERS)
    assert up.ready["members"], up.log.read_text()
    lying = [(held, what) for held, what in flips if what == RESEALED]
    with Readers(up, cid, digest, folder) as readers:
        readers.until_reads(READERS + 2)
    for _ in range(5):
        if first.member in readers.named:
            break
        readers.get_once()
    assert not readers.wrong, readers.wrong
    assert first.member in readers.named, "a lying data shard was read around and not named"
    assert readers.named <= set(expected(lying)), "a member was named that does not lie"
    found = found_by_verify(up, cid)
    assert found >= expected(lying), "a lying shard was not found"
    assert found <= expected(flips), "a shard was reported that nobody touched"
    return up, lying


def run_campaign(folder: Path, size: int, rounds: int) -> str:
    """Rounds of flips on fresh objects, live and between two runs; give how many there were."""
    rng = random.Random(seed())
    kinds: Counter[str] = Counter()
    up = start(folder / "home", MEMBERS)
    try:
        for turn in range(rounds):
            for live in (True, False):
                path = folder / f"file-{turn}-{live}"
                digest = random_file(path, size, rng)
                (line,) = publish(up, path)
                cid = str(line["cid"])
                if live:
                    flips = flip_under_load(up, cid, digest, folder, rng)
                    kinds.update(what for _, what in flips)
                    damaged = cid, digest, flips
                    continue
                up, lying = flip_between_runs(up, cid, digest, folder, rng)
                kinds.update(what for _, what in lying)
                # What was flipped under the last run is met by a start now: it heals nothing and spares nothing.
                cid, digest, flips = damaged
                assert fetch_digest(f"{up.gateway}/ipfs/{cid}") == digest
                assert found_by_verify(up, cid) == expected(flips)
        assert up.end() == 0, up.log.read_text()
    finally:
        kill_network(up)
        up.process.wait()
    return f"{kinds.total()} shards with flipped bits, all found: {dict(sorted(kinds.items()))}"


def test_flipped_bits_are_never_served_and_always_found(tmp_path: Path) -> None:
    """The short form: one round, with bits flipped in one to four shards of every stripe."""
    print(run_campaign(tmp_path, 9 * MIB, 1))


@pytest.mark.soak
def test_flipped_bits_in_many_stripes(tmp_path: Path) -> None:
    """The long form: eight rounds of larger objects."""
    print(run_campaign(tmp_path, 64 * MIB, 8))
