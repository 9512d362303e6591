"""The shard store contract on fake members."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fungistor.ids import MemberNumber
from fungistor.pool import MemberSpec
from fungistor.testing.contracts.shard_store import Cluster, ShardStoreContract, spec
from fungistor.testing.fake_member import FakeMember
from fungistor.testing.faults import FaultPlan


class FakeCluster:
    """Six fakes."""

    def __init__(self, stack: ExitStack) -> None:
        self.members = {MemberNumber(number): stack.enter_context(FakeMember()) for number in range(1, 7)}

    def specs(self) -> list[MemberSpec]:
        return [spec(number, member.address) for number, member in self.members.items()]

    def pause(self, number: MemberNumber) -> None:
        self.members[number].faults = FaultPlan(hang=True)

    def resume(self, number: MemberNumber) -> None:
        self.members[number].resume()

    def kill(self, number: MemberNumber) -> None:
        self.members[number].stop()

    def restart(self, number: MemberNumber) -> None:
        self.members[number].restart()

    def wipe(self, number: MemberNumber) -> None:
        self.members[number].values.clear()


class TestFakeMembers(ShardStoreContract):
    """The fake is worth its name only if this passes."""

    @pytest.fixture
    def cluster(self) -> Iterator[Cluster]:
        with ExitStack() as stack:
            yield FakeCluster(stack)
