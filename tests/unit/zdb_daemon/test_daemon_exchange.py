"""One folder, two daemons: what the original wrote is served by ours, and the other way round, turn by turn."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.unit.zdb_daemon.harness import Daemon
from tests.unit.zdb_daemon.model import Space, spaces
from tests.unit.zdb_daemon.original import Original, needs_original

DATASIZE = ("--datasize", "524288")
TURNS = 6


def serve(home: Path, turn: int) -> Daemon | Original:
    """The original first, then ours, then the original again."""
    return Daemon(home, *DATASIZE) if turn % 2 else Original(home, *DATASIZE)


@needs_original
@pytest.mark.parametrize(("seed", "ends"), [(0, signal.SIGTERM), (1, signal.SIGKILL)], ids=["stopped", "killed"])
def test_a_folder_goes_back_and_forth(tmp_path: Path, seed: int, ends: signal.Signals) -> None:
    """Seven namespaces of every kind go six times from one daemon to the other, written to by each, ended cleanly or
    killed: values, times, histories, properties, order, cursors and ids stay; only the original's own HISTORY errs."""
    exchange(tmp_path, seed, ends, steps=60)


@needs_original
@pytest.mark.soak
def test_folders_go_back_and_forth_at_length(tmp_path: Path) -> None:
    """The long form: forty seeds, longer turns."""
    for seed in range(100, 140):
        exchange(tmp_path / str(seed), seed, signal.SIGKILL if seed % 2 else signal.SIGTERM, steps=250)


def exchange(home: Path, seed: int, ends: signal.Signals, steps: int) -> None:
    """Six turns; each begins with a comparison of everything."""
    chance = random.Random(seed)
    worlds: list[Space] = spaces()
    left: list[tuple[object, ...]] = []
    for turn in range(TURNS):
        server = serve(home, turn)
        try:
            client = server.client()
            is_original = isinstance(server, Original)
            if not turn:
                for space in worlds:
                    space.make(client)
            for space in worlds:
                space.check(client, misreads=is_original)
            if turn:
                assert [space.leave(client) for space in worlds] == left
            for space in worlds:
                space.work(client, chance, steps, misreads=is_original)
                space.check(client, misreads=is_original)
            left = [space.leave(client) for space in worlds]
        finally:
            if isinstance(server, Original):
                server.stop(ends)
            elif ends is signal.SIGKILL:
                server.kill()
            else:
                server.stop()
