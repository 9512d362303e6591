"""Several processes on one catalog, real files: no commit is lost, also when processes are killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Publish, decode_command
from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.log import START
from fungistor.catalog.state import State
from fungistor.errors import FailedError
from tests.unit.catalog.samples import command, owing, publish, record
from tests.unit.catalog.worker import open_catalog

KILL_SEED = 20260


def start(folder: Path, first: int, count: int) -> subprocess.Popen[str]:
    """A worker that is ready and waits for the word."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.catalog.worker", str(folder), str(first), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


def go(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()


def acknowledged(worker: subprocess.Popen[str]) -> list[tuple[int, int]]:
    """(object, revision) of each whole line that a finished or killed worker printed."""
    with worker:
        assert worker.stdout is not None
        lines = worker.stdout.read().splitlines(keepends=True)
    return [(int(line.split()[0]), int(line.split()[1])) for line in lines if line.endswith("\n")]


def check_whole(folder: Path) -> None:
    """Every entry decodes, the records are those of the log, and a replay from nothing gives this state."""
    catalog = open_catalog(str(folder))
    assert catalog.catch_up()
    log = SqliteLog(str(folder / "log.db"))
    logged = set()
    for entry in log.read(START):
        body = decode_command(entry.payload).body
        assert isinstance(body, Publish)
        logged.add(body.record.object_id)
    assert {r.object_id for r in catalog.records()} == logged
    assert catalog.revision == len(logged)
    replayed = State(str(folder / "replayed.db"))
    replay = Catalog(log, replayed)
    assert replay.catch_up()
    assert replayed.fingerprint() == catalog._state.fingerprint()
    replay.close()
    catalog.close()
    for file in folder.glob("replayed.db*"):
        file.unlink()


@pytest.mark.slow
def test_eight_processes_lose_no_commit(tmp_path: Path) -> None:
    """8 publishers x 25 commits at once: all there, revisions 1 to 200, each given to one commit."""
    workers = [start(tmp_path, 25 * index, 25) for index in range(8)]
    for worker in workers:
        go(worker)
    pairs = [pair for worker in workers for pair in acknowledged(worker)]
    assert sorted(number for number, _ in pairs) == list(range(200))
    assert sorted(revision for _, revision in pairs) == list(range(1, 201))
    check_whole(tmp_path)
    catalog = open_catalog(str(tmp_path))
    assert all(catalog.record(record(n).object_id) == record(n, owed=owing((1 + n % 20, 2))) for n in range(200))
    assert catalog.status().owed_shards == 400
    catalog.close()


def kill_campaign(tmp_path: Path, seed: int, rounds: int) -> None:
    """Two publishers start and are killed, again and again, on one catalog that is looked over each time."""
    chance = random.Random(seed)
    print(f"seed {seed}")
    seen: dict[int, int] = {}
    for turn in range(rounds):
        workers = [start(tmp_path, 100_000 * turn + 10_000 * index, 10_000) for index in range(2)]
        for worker in workers:
            go(worker)
        assert workers[0].stdout is not None
        first = workers[0].stdout.readline()
        seen[int(first.split()[0])] = int(first.split()[1])
        threading.Event().wait(chance.uniform(0.0, 0.15))
        for worker in workers:
            worker.kill()
        for worker in workers:
            seen.update(acknowledged(worker))
        if turn % 2:
            # The state is expendable also after a crash.
            for file in tmp_path.glob("state.db*"):
                file.unlink()
        catalog = open_catalog(str(tmp_path))
        catalog.catch_up()
        assert all(catalog.record(record(number).object_id) is not None for number in seen)
        catalog.close()
        check_whole(tmp_path)
    assert len(set(seen.values())) == len(seen) >= rounds


@pytest.mark.slow
def test_kill_9_loses_no_acknowledged_commit(tmp_path: Path) -> None:
    """Publishers killed at random moments: what they acknowledged is there, nothing is half, others go on."""
    kill_campaign(tmp_path, KILL_SEED, 6)


@pytest.mark.soak
def test_kill_9_soak(tmp_path: Path) -> None:
    """The same for long, by another seed each time."""
    kill_campaign(tmp_path, random.SystemRandom().randrange(1 << 32), 40)


def test_threads_share_one_catalog(tmp_path: Path) -> None:
    """Threads that commit through one object lose nothing and see their own commits."""
    catalog = open_catalog(str(tmp_path))
    failures: list[int] = []

    def publish_some(first: int) -> None:
        for number in range(first, first + 10):
            catalog.commit(command(publish(number)))
            if catalog.record(record(number).object_id) is None:
                failures.append(number)

    threads = [threading.Thread(target=publish_some, args=(10 * index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (failures, catalog.revision) == ([], 60)
    catalog.close()


def test_a_forked_child_commits_and_the_parent_goes_on(tmp_path: Path) -> None:
    """Parent and child use the catalog that was open before the fork, each with connections of its own."""
    catalog = open_catalog(str(tmp_path))
    catalog.commit(command(publish(1)))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number in range(2, 12):
                catalog.commit(command(publish(number)))
            code = 0
        finally:
            os._exit(code)
    for number in range(12, 22):
        catalog.commit(command(publish(number)))
    assert os.waitpid(child, 0)[1] == 0
    catalog.catch_up()
    assert (catalog.revision, len(list(catalog.records()))) == (21, 21)
    catalog.close()
    check_whole(tmp_path)


def test_a_fork_amid_another_thread_s_transaction_leaves_the_parent_whole(tmp_path: Path) -> None:
    """The child, whose copy of the connection is of no use, is told so; the parent's transaction commits."""
    log = SqliteLog(str(tmp_path / "log.db"), busy_timeout_s=0.1)
    log.append(0, [b"before"])
    inside, leave = threading.Event(), threading.Event()

    def transact() -> None:
        with log._database.write() as connection:
            connection.execute("INSERT INTO entry (payload) VALUES (?)", (b"amid",))
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=transact)
    thread.start()
    assert inside.wait(30)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            log.epoch()
        except FailedError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    leave.set()
    thread.join(30)
    assert [entry.payload for entry in log.read(START)] == [b"before", b"amid"]
    log.close()


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    """While another connection holds the state's and the log's write locks, records and positions read on."""
    catalog = open_catalog(str(tmp_path))
    catalog.commit(command(publish(1)))
    reader = open_catalog(str(tmp_path))
    with catalog._state._database.write(), SqliteLog(str(tmp_path / "log.db"))._database.write():
        begun = time.monotonic()
        assert reader.record(record(1).object_id) == record(1)
        assert (reader.behind(), reader.revision) == (False, 1)
        assert time.monotonic() - begun < 2
    reader.close()
    catalog.close()
