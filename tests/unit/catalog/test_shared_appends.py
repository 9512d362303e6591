"""Appends that are shared: who asks while another appends goes with the next, and everybody learns his own end."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fungistor.catalog import shared_appends
from fungistor.catalog.log import START, FenceMovedError, Position, after_entry
from fungistor.catalog.shared_appends import SharedAppends
from fungistor.errors import UnavailableError
from fungistor.node.children import wait_until
from fungistor.testing.memory_log import MemoryLog

WAIT_S = 60.0


class CountedLog(MemoryLog):
    """Notes the size of each append; the first waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.sizes: list[int] = []

    def append(self, fence: int, batch: Sequence[bytes]) -> Position:
        if not self.sizes:
            self.sizes.append(len(batch))
            assert self.may.wait(WAIT_S)
        else:
            self.sizes.append(len(batch))
        return super().append(fence, batch)


def waiting(folder: Path) -> int:
    """Requests that the next append takes: none of one that is being appended."""
    return sum(1 for name in os.listdir(folder) if name != "turn" and "." not in name) if folder.exists() else 0


def test_who_asks_meanwhile_shares_the_next_append(tmp_path: Path) -> None:
    """Seven writers that ask while the first appends are one further append; each learns the place of his own entries,
    and no request is left."""
    folder, log = tmp_path / "appends", CountedLog()
    shared = SharedAppends(log, str(folder))
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(shared.append, 0, [b"first"])
        assert wait_until(lambda: bool(log.sizes), WAIT_S, 0.001)
        others = [pool.submit(shared.append, 0, [b"a%d" % number, b"b%d" % number]) for number in range(7)]
        assert wait_until(lambda: waiting(folder) == 7, WAIT_S, 0.001)
        log.may.set()
        assert first.result(WAIT_S) == after_entry(1)
        places = [future.result(WAIT_S) for future in others]
    assert log.sizes == [1, 14]
    entries = {entry.position: entry.payload for entry in log.read(START)}
    assert [entries[place] for place in places] == [b"b%d" % number for number in range(7)]
    assert os.listdir(folder) == ["turn"]


def test_a_request_whose_writer_died_is_not_appended(tmp_path: Path) -> None:
    """A file that nobody holds is left out, and removed."""
    folder, log = tmp_path / "appends", MemoryLog()
    shared = SharedAppends(log, str(folder))
    shared.append(0, [b"one"])
    (folder / "00").write_bytes(b"w" + bytes(16) + (3).to_bytes(4, "big") + b"old")
    shared.append(0, [b"two"])
    assert [entry.payload for entry in log.read(START)] == [b"one", b"two"]
    assert os.listdir(folder) == ["turn"]


@pytest.mark.parametrize("error", [UnavailableError("away"), FenceMovedError(expected=0, found=1)])
def test_an_append_that_fails_is_its_own_writers_failure(tmp_path: Path, error: Exception) -> None:
    """Where the shared append fails, whoever led it meets that or goes by himself; nobody else is told that his was
    done when it was not: all entries that were acknowledged are there, once."""
    folder, log = tmp_path / "appends", CountedLog()
    shared = SharedAppends(log, str(folder))
    strikes = iter([None, error])

    def fault(when: str) -> None:
        if when == "before" and (struck := next(strikes, None)) is not None:
            raise struck

    log.fault = fault
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(shared.append, 0, [b"first"])
        assert wait_until(lambda: bool(log.sizes), WAIT_S, 0.001)
        others = {b"%d" % number: pool.submit(shared.append, 0, [b"%d" % number]) for number in range(3)}
        assert wait_until(lambda: waiting(folder) == 3, WAIT_S, 0.001)
        log.may.set()
        first.result(WAIT_S)
        done = {payload for payload, future in others.items() if future.exception(WAIT_S) is None}
    kept = [entry.payload for entry in log.read(START)]
    assert sorted(kept) == sorted({b"first", *done})
    assert len(done) == (2 if isinstance(error, UnavailableError) else 3)


def test_nobody_waits_long_for_one_who_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody keeps the turn and does nothing, another appends by himself, once; then turns go on."""
    monkeypatch.setattr(shared_appends, "TURN_S", 0.05)
    folder, log = tmp_path / "appends", MemoryLog()
    shared = SharedAppends(log, str(folder))
    shared.append(0, [b"one"])
    with open(folder / "turn", "rb") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        assert shared.append(0, [b"two"]) == after_entry(2)
    assert shared.append(0, [b"three"]) == after_entry(3)
    assert [entry.payload for entry in log.read(START)] == [b"one", b"two", b"three"]


def test_who_was_taken_waits_to_hear_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an append that took a request goes on for longer than a turn, its writer does not append it again; a
    request that nobody took is withdrawn, and appended by its writer alone."""
    folder, log, slow, may = tmp_path / "appends", CountedLog(), threading.Event(), threading.Event()
    shared = SharedAppends(log, str(folder))

    def fault(when: str) -> None:
        if when == "before" and log.sizes[-1] > 1:
            slow.set()
            assert may.wait(WAIT_S)

    log.fault = fault
    in_vain: list[str] = []
    rename = shared_appends._renamed

    def renamed(path: str, new: str) -> bool:
        done = rename(path, new)
        if not done:
            in_vain.append(new)
        return done

    monkeypatch.setattr(shared_appends, "_renamed", renamed)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(shared.append, 0, [b"first"])
        assert wait_until(lambda: bool(log.sizes), WAIT_S, 0.001)
        others = [pool.submit(shared.append, 0, [b"%d" % number]) for number in range(3)]
        assert wait_until(lambda: waiting(folder) == 3, WAIT_S, 0.001)
        log.may.set()
        first.result(WAIT_S)
        assert slow.wait(WAIT_S)
        assert shared.append(0, [b"late"]) == after_entry(2)
        assert wait_until(lambda: len(in_vain) == 2, WAIT_S, 0.001)
        may.set()
        places = [future.result(WAIT_S) for future in others]
    entries = {entry.position: entry.payload for entry in log.read(START)}
    assert [entries[place] for place in places] == [b"0", b"1", b"2"]
    assert sorted(entries.values()) == [b"0", b"1", b"2", b"first", b"late"]
    assert os.listdir(folder) == ["turn"]
