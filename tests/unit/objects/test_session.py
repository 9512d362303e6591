"""Sessions: ids, places, what a flush leaves, and the journal."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fungistor.coding.manifest import Slot
from fungistor.coding.stripe import stripe_id
from fungistor.errors import UnavailableError
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, StripeId
from fungistor.objects.session import ID_DRAWS_MAX, Session, WrittenStripe
from fungistor.testing.memory_store import MemoryReceipt, MemoryStore
from tests.unit.objects.stores import LAYOUT, store_of


def written(k: int, window: tuple[MemberNumber, ...], owed: set[int]) -> WrittenStripe:
    """A stripe of which some shards are owed."""
    slot = Slot(StripeId(os.urandom(32)), k, len(window) - k, 100, bytes(32), LAYOUT)
    receipts = {MemoryReceipt(member, b"1") for index, member in enumerate(window) if index not in owed}
    return WrittenStripe(slot, window, (90,), frozenset(owed), receipts)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(8, 40), down=st.integers(0, 6), shards=st.integers(5, 20), seed=st.integers(0, 99))
def test_the_window_leaves_out_as_many_down_members_as_can_be(
    tmp_path: Path, count: int, down: int, shards: int, seed: int
) -> None:
    """Of the ids that the counter leads to, one whose window has the fewest down members is drawn."""
    shards = min(shards, count)
    store = store_of(count, down, seed)
    chance = random.Random(seed)
    session = Session(str(tmp_path), store, chance.randbytes)
    secret = session._ids.secret
    drawn, window = session.draw_id(LAYOUT, shards)
    up = set(store.up_members())

    def absent(number: int) -> int:
        return sum(member not in up for member in store.window(stripe_id(secret, number), LAYOUT, shards))

    tries = 1 if shards == count else ID_DRAWS_MAX
    assert len(set(window) - up) == min(map(absent, range(tries)))
    assert window == store.window(drawn, LAYOUT, shards)


def test_small_stripes_avoid_the_dead(tmp_path: Path) -> None:
    """With four of twenty members down, a hundred stripes of five copies all have five members that answer."""
    store = store_of(20, down=4)
    session = Session(str(tmp_path), store)
    up = set(store.up_members())
    assert all(set(session.draw_id(LAYOUT, 5)[1]) <= up for _ in range(100))


def test_a_window_of_the_whole_pool_is_drawn_once(tmp_path: Path) -> None:
    """Where every window holds every member, one draw is enough."""
    calls = []

    class Counting(MemoryStore):
        def window(self, stripe_id: StripeId, layout: LayoutNumber, shards: int) -> tuple[MemberNumber, ...]:
            calls.append(stripe_id)
            return super().window(stripe_id, layout, shards)

    plain = store_of(20)
    store = Counting({number: MemberId(plain.name(number)) for number in plain.members()}, plain.layouts)
    store.down([MemberNumber(1)])
    Session(str(tmp_path), store).draw_id(LAYOUT, 20)
    assert len(calls) == 1


def test_ids_follow_from_the_secret_in_the_journal(tmp_path: Path) -> None:
    """Every id a session draws can be listed from its journal entry alone, so that gc finds what a crash left."""
    with Session(str(tmp_path), store_of(12, down=2)) as session:
        drawn = [session.draw_id(LAYOUT, 6)[0] for _ in range(20)]
        path = Path(session.folder) / "session.json"
        entry = json.loads(path.read_text())
        assert path.stat().st_mode & 0o777 == 0o600
        assert Path(session.folder).stat().st_mode & 0o777 == 0o700
    secret = bytes.fromhex(entry["secret"])
    listed = [stripe_id(secret, counter) for counter in range(64 * 20)]
    assert set(drawn) <= set(listed)
    assert len(set(drawn)) == 20
    assert entry["session"] == session.id.hex()
    assert not Path(session.folder).exists()


def test_settling_flushes_once_and_counts_debts(tmp_path: Path) -> None:
    """Debts of all stripes are summed by member, and the worst stripe says how many losses are survived."""
    store = store_of(20)
    session = Session(str(tmp_path), store)
    window = tuple(store.members())
    session.wrote(written(16, window, set()))
    session.wrote(written(16, window, {3}))
    session.wrote(written(16, window, {3, 7}))
    settlement = session.settle()
    assert settlement.survives == 2
    assert settlement.owed == {window[3]: 2, window[7]: 1}
    assert settlement.owed_shards == 3
    assert session.new_bytes == 57 * 116
    assert session.value_bytes == 60 * 116
    assert session.stripes == 3


@pytest.mark.parametrize("fault", ["unflushed", "refuse", "restart"])
def test_what_is_not_flushed_is_owed(tmp_path: Path, fault: str) -> None:
    """A member whose flush fails owes every shard it acknowledged."""
    store = store_of(20)
    session = Session(str(tmp_path), store)
    window = tuple(store.members())
    session.wrote(written(16, window, set()))
    session.wrote(written(16, window, set()))
    if fault == "restart":
        store.restart(window[5])
    else:
        setattr(store[window[5]].faults, fault, True)
    settlement = session.settle()
    assert settlement.owed == {window[5]: 2}
    assert settlement.survives == 3


def test_fewer_than_k_plus_two_durable_is_no_publish(tmp_path: Path) -> None:
    """With three members lost before the flush nothing may be acknowledged; the error names them."""
    store = store_of(20)
    session = Session(str(tmp_path), store)
    window = tuple(store.members())
    session.wrote(written(16, window, set()))
    for member in window[:3]:
        store[member].faults.unflushed = True
    with pytest.raises(UnavailableError, match=r"durable on 17 members, 18 are needed .*m01.*m02.*m03"):
        session.settle()


def test_a_session_without_stripes_asks_nobody(tmp_path: Path) -> None:
    """Nothing stored, nothing flushed, nothing owed."""
    store = store_of(20, down=20)
    settlement = Session(str(tmp_path), store).settle()
    assert (settlement.survives, settlement.owed) == (4, {})
