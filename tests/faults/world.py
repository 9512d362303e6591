"""What the failure tests share: seeded contents, reads that may be disturbed, and a look at a running network."""

from __future__ import annotations

import hashlib
import json
import os
import random
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

from fungistor.node.children import wait_until
from tests.e2e.running import Line, Up

MIB = 1 << 20
WAIT_S = 60.0


def seed() -> int:
    """The campaign's seed: FUNGISTOR_SEED repeats a run. Printed, so that a failure shows it."""
    chosen = int(os.environ.get("FUNGISTOR_SEED", "20260101"))
    print(f"FUNGISTOR_SEED={chosen}")
    return chosen


def random_file(path: Path, size: int, rng: random.Random) -> str:
    """Write incompressible bytes; give their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, 4 * MIB):
            data = rng.randbytes(min(4 * MIB, size - start))
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def small_tree(root: Path, rng: random.Random) -> None:
    """A few hundred files of many sizes, texts and duplicates among them, with links and empty things."""
    root.mkdir()
    for folder in ("a", "a/b", "empty"):
        (root / folder).mkdir()
    for number in range(240):
        name = root / rng.choice(("a", "a/b", ".")) / f"file-{number}.txt"
        name.write_text(f"line {number}\n" * rng.randrange(400))
    for number in range(6):
        (root / f"random-{number}.bin").write_bytes(rng.randbytes(rng.randrange(3 * MIB)))
    (root / "twin.bin").write_bytes((root / "random-0.bin").read_bytes())
    (root / "nothing").touch()
    (root / "link").symlink_to("a/b")


def fetch_digest(url: str, during: Callable[[], object] | None = None) -> str:
    """Read a URL to its end; `during` is called once, when the first MiB is here."""
    digest = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
        while data := answer.read(MIB):
            digest.update(data)
            if during is not None:
                during()
                during = None
    return digest.hexdigest()


def publish(up: Up, *paths: object, options: tuple[str, ...] = ()) -> list[Line]:
    """Publish paths that must succeed."""
    return up.lines("publish", *options, *map(str, paths))


def member_ids(up: Up) -> list[str]:
    """All members' ids."""
    return [str(line["id"]) for line in up.lines("member", "list")]


def status(up: Up) -> Line:
    """The network's status."""
    return up.lines("status")[0]


def wait_paid(up: Up) -> None:
    """Wait until nobody owes a shard."""
    assert wait_until(lambda: status(up)["owed_shards"] == 0, WAIT_S, 0.2), status(up)


def object_cids(up: Up) -> set[str]:
    """The CIDs that are visible."""
    return {str(line["cid"]) for line in up.lines("objects")}


def last_error(stderr: str) -> Line:
    """The error line of a `--json` command."""
    found: Line = json.loads(stderr.strip().splitlines()[-1])["error"]
    return found


def pss_bytes(processes: list[psutil.Process]) -> int:
    """Memory of processes, shared pages counted once."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total
