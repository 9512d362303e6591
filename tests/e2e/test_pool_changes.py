"""A pool that changes under a running network: one member added, one drained, one wiped, while all goes on."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.e2e.running import Line, Up, running

OBJECTS = 12
OBJECT_BYTES = 1 << 20


def content(number: int) -> bytes:
    """What object `number` holds: no compression makes it smaller."""
    return random.Random(number).randbytes(OBJECT_BYTES)


def publish(up: Up, folder: Path, number: int) -> str:
    (folder / f"object{number}").write_bytes(content(number))
    return str(up.lines("publish", str(folder / f"object{number}"))[0]["cid"])


def repair(up: Up) -> Line:
    return up.lines("repair")[0]


class Background:
    """Something done again and again until the pool has changed; its first failure is kept."""

    def __init__(self, act: Callable[[int], None]) -> None:
        self._act = act
        self._ended = threading.Event()
        self.rounds = 0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                self._act(self.rounds)
                self.rounds += 1
        except BaseException as error:  # noqa: BLE001  # told by `end`, in the test's own thread
            self.failure = error

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure


def test_a_member_added_one_drained_one_wiped(tmp_path: Path) -> None:
    """What moves is at most 1.1 times what must; reads and publishes go on meanwhile; then every shard is good, and the
    drained member holds nothing and can go. Seed: the objects' numbers."""
    with running(tmp_path / "home", ("--no-sync",)) as up:
        cids = {number: publish(up, tmp_path, number) for number in range(OBJECTS)}
        stored = sum(int(str(line["stored"])) for line in up.lines("objects"))

        def read(turn: int) -> None:
            number = turn % OBJECTS
            assert httpx.get(f"{up.gateway}/ipfs/{cids[number]}", timeout=30).content == content(number)

        def publish_more(turn: int) -> None:
            cids[OBJECTS + turn] = publish(up, tmp_path, OBJECTS + turn)

        reader, publisher = Background(read), Background(publish_more)
        try:
            moved = changes(up, tmp_path)
        finally:
            reader.end()
            publisher.end()
        assert reader.rounds > 0
        assert publisher.rounds > 0
        last = repair(up)
        assert (last["waiting"], last["unreadable"], last["left"]) == (0, 0, "")
        for change, ideal in (("added", stored / 21), ("drained", stored / 20), ("wiped", stored / 20)):
            # Of what was published meanwhile some moves, too: the bound is on what was there at each change.
            assert moved[change]["planned"] <= 1.1 * ideal * (1 + moved[change]["grown"]), (change, moved)
        assert up.command("verify", "--all").returncode == 0
        assert next(line for line in up.lines("pool", "list") if line["id"] == "m20")["drained"]
        [gone] = up.lines("pool", "remove", "m20")
        assert gone["removed"] == ["m20"]
        assert up.command("pool", "remove", "m19").returncode == 6
        assert len(up.lines("member", "list")) == 20
        for number, cid in cids.items():
            assert httpx.get(f"{up.gateway}/ipfs/{cid}", timeout=30).content == content(number)


def changes(up: Up, folder: Path) -> dict[str, dict[str, float]]:
    """The three changes, a repair after each; what each was planned to move, and how much had been stored by then."""
    moved: dict[str, dict[str, float]] = {}
    before = stored_now(up)
    for change, words in (("added", ("pool", "add")), ("drained", ("pool", "drain", "m20"))):
        [would] = up.lines(*words, "--dry-run")
        [plan] = up.lines(*words)
        assert would["layout"] == plan["layout"]
        moved[change] = {"planned": float(str(plan["moved_bytes"])), "grown": stored_now(up) / before - 1}
        assert repair(up)["retired_layouts"] == 1
    up.lines("member", "stop", "m05")
    shutil.rmtree(folder / "home" / "members" / "m05")
    moved["wiped"] = {"planned": stored_now(up) / 20, "grown": stored_now(up) / before - 1}
    up.lines("member", "start", "--reset", "m05")
    done = repair(up)
    assert done["retired_layouts"] == 1
    assert int(str(done["rebuilt"])) > 0
    assert float(str(done["moved_bytes"])) <= 1.1 * stored_now(up) / 20
    return moved


def stored_now(up: Up) -> float:
    return float(sum(int(str(line["stored"])) for line in up.lines("objects")))


def test_a_pool_that_would_be_too_small_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Six members cannot lose one while stripes lie on all six; a dry run changes nothing; unknown ids are named."""
    with running(tmp_path / "home", ("--no-sync", "--members", "6")) as up:
        publish(up, tmp_path, 0)
        refused = up.command("pool", "drain", "m06")
        assert refused.returncode == 6
        assert "pool add" in refused.stderr
        assert up.command("pool", "drain", "m09").returncode == 4
        assert up.command("pool", "label", "m01").returncode == 2
        assert up.command("pool", "label", "m01", "--zone", "a b").returncode == 2
        up.lines("pool", "add", "--dry-run")
        assert len(up.lines("pool", "list")) == 6
        up.lines("pool", "label", "m01", "--zone", "nl/ams", "--capacity", "1000000000")
        [line] = [line for line in up.lines("pool", "list") if line["id"] == "m01"]
        assert (line["zone"], line["capacity"], line["weight"]) == ("nl/ams", 1_000_000_000, 1)
        assert up.command("repair", "--rate", "0").returncode == 2
        assert repair(up)["waiting"] == 0
