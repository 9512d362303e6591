"""What every engine of the catalog's log must keep. Subclass `LogContract` with a fixture `world`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import pytest

from fungistor.catalog.log import BATCH_ENTRIES_MAX, START, FenceMovedError, Log, LogTrimmedError, Position
from fungistor.errors import CorruptError, InvalidError
from fungistor.limits import COMMAND_BYTES_MAX

_SOON_S = 10.0


class LogWorld(Protocol):
    """One log, and the ways to it."""

    def open(self) -> Log:
        """Another handle on the same log; the world closes it."""

    def append_elsewhere(self, fence: int, batch: Sequence[bytes]) -> Position:
        """Append from another process where the engine has processes, else from another handle."""


def payloads(log: Log, after: Position = START) -> list[bytes]:
    """All that is there to read."""
    return [entry.payload for entry in log.read(after)]


class LogContract:
    """Each test takes a fresh log."""

    def test_a_new_log_is_empty(self, world: LogWorld) -> None:
        """A new log has epoch 0, no entry, and START as its last position."""
        log = world.open()
        assert (log.epoch(), log.last(), payloads(log)) == (0, START, [])

    def test_entries_come_back_in_the_order_of_appends(self, world: LogWorld) -> None:
        """What was appended in batches reads back byte for byte, in order, across more entries than one chunk."""
        log = world.open()
        sent = [number.to_bytes(4, "big") * (number % 7) for number in range(600)]
        for start in range(0, 600, BATCH_ENTRIES_MAX):
            log.append(0, sent[start : start + BATCH_ENTRIES_MAX])
        assert payloads(log) == sent

    def test_append_returns_the_position_of_the_batch_s_last_entry(self, world: LogWorld) -> None:
        """Reading after what `append` returned gives what came later, and `last` is that position."""
        log = world.open()
        position = log.append(0, [b"a", b"b"])
        assert position == log.last()
        assert payloads(log, position) == []
        log.append(0, [b"c"])
        assert payloads(log, position) == [b"c"]

    def test_every_position_read_resumes_right_after_it(self, world: LogWorld) -> None:
        """A reader that stops after any entry goes on with the next one."""
        log = world.open()
        log.append(0, [b"a", b"b", b"c"])
        entries = list(log.read(START))
        assert len({entry.position for entry in entries} | {START}) == 4
        assert [payloads(log, entry.position) for entry in entries] == [[b"b", b"c"], [b"c"], []]

    def test_handles_and_processes_see_one_log(self, world: LogWorld) -> None:
        """What another process appends is there for every handle, identity and epoch are shared."""
        one, other = world.open(), world.open()
        one.append(0, [b"mine"])
        position = world.append_elsewhere(0, [b"theirs"])
        assert payloads(one) == payloads(other) == [b"mine", b"theirs"]
        assert one.last() == other.last() == position
        assert one.identity() == other.identity()

    def test_a_moved_fence_refuses_the_whole_batch(self, world: LogWorld) -> None:
        """After the epoch moved, an append under the old one is refused and leaves nothing behind."""
        one, other = world.open(), world.open()
        assert other.raise_epoch(0) == 1
        with pytest.raises(FenceMovedError):
            one.append(0, [b"late"])
        with pytest.raises(FenceMovedError):
            one.raise_epoch(0)
        assert one.epoch() == 1
        one.append(1, [b"fresh"])
        assert payloads(other) == [b"fresh"]

    def test_a_batch_that_some_engine_could_not_take_is_refused(self, world: LogWorld) -> None:
        """No entry, too many or too many bytes are InvalidError on every engine, and append nothing."""
        log = world.open()
        for batch in ([], [b""] * (BATCH_ENTRIES_MAX + 1), [b"x" * COMMAND_BYTES_MAX, b"x"]):
            with pytest.raises(InvalidError):
                log.append(0, batch)
        assert payloads(log) == []

    def test_the_largest_batch_fits(self, world: LogWorld) -> None:
        """A payload of exactly the bound comes back whole."""
        log = world.open()
        log.append(0, [b"x" * COMMAND_BYTES_MAX])
        assert payloads(log) == [b"x" * COMMAND_BYTES_MAX]

    def test_trimmed_is_where_reading_can_begin(self, world: LogWorld) -> None:
        """Nothing is trimmed at first; after a trim every entry that is left follows `trimmed`, and it only grows."""
        log = world.open()
        assert log.trimmed() == START
        positions = [log.append(0, [payload]) for payload in (b"a", b"b", b"c")]
        assert log.trimmed() == START
        log.trim(positions[1])
        assert payloads(log, log.trimmed()) == [b"b", b"c"]
        assert log.trimmed() == positions[0]
        log.trim(positions[0])
        assert log.trimmed() == positions[0]

    def test_watch_answers_at_once_when_something_is_there(self, world: LogWorld) -> None:
        """An entry after the position ends the wait; none lets the time pass and gives False."""
        log = world.open()
        assert log.watch(START, 0.0) is False
        position = log.append(0, [b"a"])
        assert log.watch(START, 0.0) is True
        assert log.watch(position, 0.02) is False

    def test_watch_hears_of_an_append_elsewhere(self, world: LogWorld) -> None:
        """A watcher that waits is woken by another process's append."""
        log = world.open()
        position = log.append(0, [b"a"])
        heard: list[bool] = []
        watcher = threading.Thread(target=lambda: heard.append(log.watch(position, _SOON_S)))
        watcher.start()
        world.append_elsewhere(0, [b"b"])
        watcher.join(_SOON_S)
        assert heard == [True]

    def test_close_wakes_a_watcher(self, world: LogWorld) -> None:
        """Closing a handle ends its waits with False, and closing twice is harmless."""
        log = world.open()
        heard: list[bool] = []
        watcher = threading.Thread(target=lambda: heard.append(log.watch(START, _SOON_S)))
        watcher.start()
        log.close()
        log.close()
        watcher.join(_SOON_S)
        assert heard == [False]

    def test_trim_forgets_what_lies_before_and_keeps_positions(self, world: LogWorld) -> None:
        """After a trim the entry at the position and all later ones read on, older readers are told, new positions
        are never old ones."""
        log = world.open()
        log.append(0, [b"a", b"b", b"c"])
        first, second, third = [entry.position for entry in log.read(START)]
        log.trim(second)
        assert payloads(log, first) == [b"b", b"c"]
        assert payloads(log, second) == [b"c"]
        with pytest.raises(LogTrimmedError):
            payloads(log, START)
        log.trim(first)
        log.trim(third)
        assert log.last() == third
        with pytest.raises(LogTrimmedError):
            payloads(log, first)
        assert log.append(0, [b"d"]) not in (START, first, second, third)
        assert payloads(log, third) == [b"d"]

    def test_a_position_ahead_of_the_log_is_noticed(self, world: LogWorld) -> None:
        """A reader whose position this log has not reached is told that entries are lost, not given silence."""
        log = world.open()
        log.append(0, [b"a"])
        ahead = _position_of_a_longer_log(log)
        with pytest.raises((CorruptError, InvalidError)):
            payloads(log, ahead)

    def test_appends_of_many_threads_are_all_there_once(self, world: LogWorld) -> None:
        """Threads that share a handle lose no entry, repeat none, and keep each its own order."""
        log = world.open()

        def write(writer: int) -> None:
            for number in range(20):
                log.append(0, [bytes([writer, number])])

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        found = payloads(log)
        assert sorted(found) == [bytes([writer, number]) for writer in range(4) for number in range(20)]
        for writer in range(4):
            mine = [payload for payload in found if payload[0] == writer]
            assert mine == sorted(mine)


def _position_of_a_longer_log(log: Log) -> Position:
    # Engines order their positions by bytes, so this stands behind every one they drew.
    last = log.last()
    return Position((int.from_bytes(last, "big") + 1000).to_bytes(len(last), "big"))
