"""`python -m benchmarks.catalog [--records N] [--engine sqlite|etcd] [--batch N]`: the catalog with very many objects.

A writer commits records as a publish of small objects does: keys into the key table, then one signed entry a batch. A
second node, a process of its own, follows meanwhile, takes snapshots when they are due, and trims the log. At the end a
third one begins with nothing. One JSON line an engine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.catalog_nodes import SIGNER, NodePlace, commands_of, open_node, register
from benchmarks.etcd import Etcd, serving
from benchmarks.figures import MIB
from benchmarks.processes import BenchmarkError
from benchmarks.record import ETCD, SQLITE, Key, Record, Unit
from benchmarks.setting import Setting
from fungistor.catalog.commands import Publish
from fungistor.ids import TenantNumber
from fungistor.keys.ring import WRAPPED_KEY_BYTES

RECORDS = 100_000
QUICK_RECORDS = 4_000
BATCH = 1_000
"""As `fungistor.objects.small_batch` commits them."""

LATE_S = 900.0
CASE = "{records:,} small objects in batches of {batch:,}"


class Catalog:
    """The benchmark `catalog`."""

    name = "catalog"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._records = QUICK_RECORDS if setting.quick else RECORDS

    def round(self, run: int, record: Record) -> None:  # noqa: ARG002 - every run is the same
        """Measure both engines once."""
        for engine in (SQLITE, ETCD):
            with tempfile.TemporaryDirectory(dir=self._setting.folder) as place:
                try:
                    found = measure(Path(place), engine, self._records, BATCH)
                except FileNotFoundError as error:
                    record.note(f"`catalog`: {error}")
                    continue
            case = CASE.format(records=self._records, batch=BATCH)
            for name, value in found.items():
                record.add(Key("catalog", case, engine, name.removesuffix(", MiB")), value, _unit(name))


def _unit(name: str) -> Unit:
    if name == "commit":
        return "objects/s"
    if name == "snapshots":
        return ""
    return "MiB" if "MiB" in name else "B" if "bytes" in name else "s"


def main(words: Sequence[str] | None = None) -> int:
    """Measure the engines asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalog", description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--engine", choices=(SQLITE, ETCD), action="append")
    options = parser.parse_args(words)
    for engine in options.engine or (SQLITE, ETCD):
        with tempfile.TemporaryDirectory(prefix="fungistor-catalog-") as place:
            found = measure(Path(place), engine, options.records, options.batch)
        print(json.dumps({"engine": engine, "records": options.records, "batch": options.batch, **found}), flush=True)
    return 0


def measure(place: Path, engine: str, records: int, batch: int) -> dict[str, float]:
    """Commit so many records on an engine; what it took, by name. Raises: FileNotFoundError: there is no etcd."""
    with contextlib.ExitStack() as stack:
        etcd = stack.enter_context(serving(place)) if engine == ETCD else None
        where = NodePlace(place, None if etcd is None else etcd.url)
        written = stack.enter_context(_follower(where, "follow"))
        done = _write(where, records, batch, etcd)
        follower = _told(written, done.revision)
    late = sorted(max(0.0, follower.at(revision) - at) for revision, at in done.committed)
    found = {
        "commit": records / done.seconds,
        "CPU of an object": done.cpu_s / records,
        "bytes of an object in the log": done.log_bytes / records,
        "bytes of an object in the state": done.state_bytes / records,
        "readable elsewhere, median": statistics.median(late),
        "readable elsewhere, p99": late[int(0.99 * (len(late) - 1))],
        "memory of the writer, MiB": done.memory / MIB,
        "memory of the follower, MiB": follower.memory / MIB,
        "snapshots": float(follower.snapshots),
        "seconds of a snapshot, longest": follower.snapshot_s,
        "memory of who keeps snapshots, MiB": follower.snapshot_memory / MIB,
        "a new node opens": follower.new_s,
        "memory of a new node, MiB": follower.new_memory / MIB,
    }
    return {name: round(value, 6) for name, value in (found | done.engine).items()}


@dataclass(frozen=True, slots=True)
class _Done:
    """What the writer did."""

    seconds: float
    cpu_s: float
    log_bytes: int
    state_bytes: int
    memory: int
    revision: int
    committed: list[tuple[int, float]]
    engine: dict[str, float]


def _write(where: NodePlace, records: int, batch: int, etcd: Etcd | None) -> _Done:
    chance = random.Random(1)
    committed: list[tuple[int, float]] = []
    log_bytes = 0
    seconds = cpu_s = 0.0
    with open_node(where, "writer", SIGNER) as node:
        register(node.catalog)
        for first in range(0, records, batch):
            commands = commands_of(chance, min(batch, records - first))  # drawn outside of what is timed
            started, cpu = time.monotonic(), time.process_time()
            node.keys.put_all(
                [
                    (command.body.record.key_id, TenantNumber(0), os.urandom(WRAPPED_KEY_BYTES))
                    for command in commands
                    if isinstance(command.body, Publish)
                ]
            )
            node.catalog.commit_all(commands)
            ended = time.monotonic()
            seconds, cpu_s = seconds + ended - started, cpu_s + time.process_time() - cpu
            committed.append((int(node.catalog.revision), ended))
            log_bytes += node.last_bytes()
        memory = psutil.Process().memory_info().rss
    figures = {} if etcd is None else etcd.figures()
    state = os.path.getsize(where.folder / "writer" / "state.sqlite")
    return _Done(seconds, cpu_s, log_bytes, state, memory, committed[-1][0], committed, figures)


@dataclass(frozen=True, slots=True)
class _Follower:
    """What the second node said, and the third."""

    seen: list[tuple[int, float]]
    memory: int
    snapshots: int
    snapshot_s: float
    snapshot_memory: int
    new_s: float
    new_memory: int

    def at(self, revision: int) -> float:
        """When it had come to a revision."""
        return min(at for seen, at in self.seen if seen >= revision)


@contextlib.contextmanager
def _follower(where: NodePlace, role: str) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "benchmarks.catalog_nodes", role, str(where.folder), where.url or ""]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise BenchmarkError(f"the node that should {role} did not begin")
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def _told(process: subprocess.Popen[str], revision: int) -> _Follower:
    """Let it come to the writer's last revision, and hear what it has seen."""
    told, _ = process.communicate(f"{revision}\n", timeout=LATE_S)
    if process.returncode:
        raise BenchmarkError("the node that should follow failed")
    found = json.loads(told)
    found["seen"] = [(seen, at) for seen, at in found["seen"]]
    return _Follower(**found)


if __name__ == "__main__":
    raise SystemExit(main())
