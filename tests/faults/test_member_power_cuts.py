"""The power goes under one member daemon with `--sync`, at any operation of the disk, on one that forgets what was not
fsynced: whatever was acknowledged is there, deletions too, also where a compaction ran."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.faults.disk.client import ForgetfulDisk, forgetful_disk
from tests.faults.world import seed
from tests.unit.zdb_daemon.harness import Daemon
from tests.unit.zdb_daemon.test_daemon_durability import Writer, check

FLAGS = ("--datasize", "1M", "--sync")
OPERATIONS_MAX = 300
MOMENT_S = 2.0

State = dict[bytes, bytes | None]


class Compactor(Writer):
    """Asks for one pass after the other."""

    def run(self) -> None:
        while True:
            try:
                self._client.call("COMPACT", "1")
            except (OSError, EOFError, ValueError):
                return


def cut(home: Path, disk: ForgetfulDisk, state: State, rng: random.Random, turn: int) -> State:
    """Four writers, a cut at some operation, and what may be counted on then; None for a key that must be gone."""
    server = Daemon(home, *FLAGS)
    check(server, state)
    writers = [Writer(server.client(), number, rng.randrange(1 << 30)) for number in range(4)]
    compactor = Compactor(server.client(), 9, 0)
    for writer in writers:
        writer.acknowledged.update(
            {key: value for key, value in state.items() if key.startswith(b"%d-" % writer._name)}
        )
    disk.arm("any", rng.randint(1, OPERATIONS_MAX))
    threads = [*writers, *([compactor] if turn % 3 == 0 else [])]
    for thread in threads:
        thread.start()
    if disk.frozen(MOMENT_S) is None:
        disk.freeze()
    server.process.send_signal(signal.SIGKILL)
    disk.cut(rng.choice((None, str(rng.random()))))
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    server.kill()
    kept: State = {}
    doubtful: State = {}
    for writer in writers:
        kept.update(writer.acknowledged)
        if writer.asked is not None:
            doubtful[writer.asked[0]] = writer.asked[1]
    server = Daemon(home, *FLAGS)
    try:
        client = server.client()
        for key, value in doubtful.items():
            found = client.call("GET", key)
            assert found in (kept.get(key), value), (turn, key)
            kept[key] = found if isinstance(found, bytes) else None
        check(server, kept)
        assert server.stop() == 0
    finally:
        server.kill()
    return kept


def campaign(folder: Path, cuts: int) -> str:
    """So many cuts, one after the other, on one folder."""
    rng, state = random.Random(seed()), State()
    home = folder / "home"
    home.mkdir()
    with forgetful_disk(folder / "disk") as disk:
        for name in ("data", "index"):
            (disk.folder / name).mkdir()
            (home / name).symlink_to(disk.folder / name)
        disk.keep_all()
        for turn in range(cuts):
            state = cut(home, disk, state, rng, turn)
    return f"{cuts} power cuts of one member under --sync: {len(state)} keys, nothing acknowledged lost"


def test_power_cuts_under_sync_lose_nothing_acknowledged(tmp_path: Path) -> None:
    """The short form: five cuts, two of them with a compaction under way."""
    print(campaign(tmp_path, 5))


@pytest.mark.soak
def test_five_hundred_power_cuts_under_sync(tmp_path: Path) -> None:
    """The long form."""
    print(campaign(tmp_path, 500))
