"""The shard port's contract on the store in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest

from fungistor.ids import MemberId, MemberNumber
from fungistor.objects.ports import ShardStore
from fungistor.testing.contracts.shard_store import LAYOUT, ShardPortContract, spec, table_for
from fungistor.testing.memory_store import MemoryStore


class MemoryMembers:
    """Six members in a dict."""

    def __init__(self) -> None:
        specs = [spec(number, "nowhere") for number in range(1, 7)]
        self.store = MemoryStore({each.number: MemberId(each.id) for each in specs}, {LAYOUT: table_for(specs)})

    def pause(self, number: MemberNumber) -> None:
        self.store[number].faults.refuse = True

    def resume(self, number: MemberNumber) -> None:
        self.store[number].faults.refuse = self.store[number].believed_down = False

    def kill(self, number: MemberNumber) -> None:
        self.store[number].faults.refuse = True

    def restart(self, number: MemberNumber) -> None:
        self.store.restart(number)

    def wipe(self, number: MemberNumber) -> None:
        self.store[number].values.clear()


class TestMemoryStore(ShardPortContract[MemoryMembers]):
    """The fake is worth its name only if this passes."""

    @pytest.fixture
    def cluster(self) -> Iterator[MemoryMembers]:
        yield MemoryMembers()

    def open_store(self, cluster: MemoryMembers) -> AbstractContextManager[ShardStore]:
        return nullcontext(cluster.store)
