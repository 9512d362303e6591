"""What commands do to the state they meet."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.catalog.commands import Payment, PayOwed, Publish, RetireLayouts
from fungistor.catalog.rules import Verdict, decide_layout, decide_payment, decide_publish, decide_retirement
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, Revision, TenantNumber
from tests.unit.catalog.samples import layout, owing, publish, record


def pay(against: bytes, *payments: tuple[int, int, int]) -> PayOwed:
    return PayOwed(record().object_id, against, tuple(Payment(MemberNumber(m), b, a) for m, b, a in payments))


def test_the_first_publish_sets_the_record() -> None:
    """Where nothing is, the publisher's record stands as it is."""
    decision = decide_publish(None, publish())
    assert (decision.verdict, decision.effect, decision.record) == (Verdict.APPLIED, True, record())


def test_the_same_publish_again_changes_nothing() -> None:
    """An identical record is no revision, whatever time it says."""
    decision = decide_publish(record(), publish(published=1))
    assert (decision.verdict, decision.effect) == (Verdict.UNCHANGED, False)


def test_publishing_again_updates_name_and_privacy_and_keeps_policy_debts_and_date() -> None:
    """With the manifest that stands, only what the user may change changes: a stale view of debts does no harm, and the
    policy is the one by which that manifest's stripes lie."""
    current = record(owed=owing((3, 2)))
    new = record(sealed_name=b"new", policy="archive", private=True, owed=(), published=5)
    decision = decide_publish(current, Publish(new, current.manifest_id))
    assert decision.verdict is Verdict.APPLIED
    assert decision.record == replace(current, sealed_name=b"new", private=True)


@pytest.mark.parametrize(("one", "other", "kept"), [(5, 9, 9), (9, 5, 9), (None, 9, None), (9, None, None)])
def test_the_later_expiry_stays(one: int | None, other: int | None, kept: int | None) -> None:
    """Of two expiries the later stays, and never is later than any."""
    decision = decide_publish(record(expires=one), publish(expires=other))
    assert (decision.record or record(expires=one)).expires == kept


def test_a_manifest_computed_against_the_one_that_stands_replaces_it() -> None:
    """The new manifest comes with its sizes, salt, keys and debts; the date of the first publish stays."""
    current = record(owed=owing((3, 2)), expires=100)
    new = record(manifest="second", owed=owing((4, 1)), published=5, expires=50)
    decision = decide_publish(current, Publish(new, current.manifest_id))
    assert decision.verdict is Verdict.APPLIED
    assert decision.record == replace(new, published=current.published, expires=100)


@pytest.mark.parametrize("against", [b"", b"another manifest"])
def test_the_second_of_two_publishers_leaves_the_first_one_s_manifest(against: bytes) -> None:
    """A manifest computed against what no longer stands is set aside, with the name sealed under its key and the
    policy that it was stored by; the privacy given with it counts."""
    current = record(owed=owing((3, 2)))
    new = record(manifest="second", sealed_name=b"mine", policy="archive", private=True, owed=owing((4, 1)))
    decision = decide_publish(current, Publish(new, against))
    assert (decision.verdict, decision.effect) == (Verdict.MERGED, True)
    assert decision.record == replace(current, private=True)


def test_the_loser_learns_of_the_merge_even_if_nothing_changes() -> None:
    """The same name and privacy are no revision, but the publisher must know that its manifest does not stand."""
    decision = decide_publish(record(), publish(manifest="second"))
    assert (decision.verdict, decision.effect) == (Verdict.MERGED, False)


def test_a_publish_that_relied_on_a_record_now_gone_is_refused() -> None:
    """It may use blocks whose keys are shredded."""
    decision = decide_publish(None, publish(against=record().manifest_id))
    assert decision.verdict is Verdict.REFUSED
    assert "unpublished" in decision.reason


def test_another_tenant_s_record_is_never_touched() -> None:
    """An object id says its tenant; a command that says otherwise is refused."""
    assert decide_publish(record(), publish(tenant=TenantNumber(1))).verdict is Verdict.REFUSED


def test_a_payment_lowers_what_is_still_as_the_payer_saw_it() -> None:
    """Debts reach what the payer says, those paid in full disappear, others stay."""
    current = record(owed=owing((1, 2), (3, 5), (9, 1)))
    decision = decide_payment(current, pay(current.manifest_id, (1, 2, 0), (3, 5, 4)))
    assert decision.record == replace(current, owed=owing((3, 4), (9, 1)))


def test_two_payers_of_the_same_shards_pay_once() -> None:
    """The second payment meets another debt than it saw and leaves it."""
    current = record(owed=owing((3, 5)))
    payment = pay(current.manifest_id, (3, 5, 2))
    once = decide_payment(current, payment).record
    assert once == replace(current, owed=owing((3, 2)))
    assert decide_payment(once, payment).verdict is Verdict.UNCHANGED


def test_a_payment_for_another_manifest_or_no_record_is_refused() -> None:
    """The shards that were paid are not those that are owed now."""
    current = record(owed=owing((3, 5)))
    assert decide_payment(current, pay(bytes(16), (3, 5, 0))).verdict is Verdict.REFUSED
    assert decide_payment(None, pay(current.manifest_id, (3, 5, 0))).verdict is Verdict.REFUSED


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(0, 4)), max_size=20))
def test_payments_in_any_order_never_raise_a_debt(tries: list[tuple[int, int, int]]) -> None:
    """Whatever payers believe, debts only fall, and stay sorted and without zeros."""
    current = record(owed=owing((1, 5), (2, 4), (3, 3), (4, 2)))
    for member, before, after in tries:
        if after >= before:
            continue
        decision = decide_payment(current, pay(current.manifest_id, (member, before, after)))
        next_record = decision.record or current
        old, new = dict(current.owed), dict(next_record.owed)
        assert all(0 < shards <= old[m] for m, shards in new.items())
        assert list(new) == sorted(new)
        current = next_record


def test_layouts_follow_each_other() -> None:
    """The first is number 1, each next one more; a repeat of the newest changes nothing, a gap is refused."""
    assert decide_layout(None, 0, layout(1)).effect
    assert decide_layout(None, 0, layout(2)).verdict is Verdict.REFUSED
    assert decide_layout(layout(1), 5, layout(1)).verdict is Verdict.UNCHANGED
    assert decide_layout(layout(1), 5, layout(1, table=b"other")).verdict is Verdict.REFUSED
    assert decide_layout(layout(1), 5, layout(2)).effect


def test_member_numbers_are_never_reused() -> None:
    """A number keeps its id while it stands, and is gone for ever when it left."""
    assert decide_layout(layout(1, [1, 2]), 5, layout(2, [1, 6])).effect
    assert decide_layout(layout(1, [1, 2]), 5, layout(2, [1, 5])).verdict is Verdict.REFUSED
    renamed = layout(2, [1, 2])
    renamed = replace(renamed, members=(replace(renamed.members[0], id=MemberId("x")), renamed.members[1]))
    assert decide_layout(layout(1, [1, 2]), 2, renamed).verdict is Verdict.REFUSED


def test_who_began_before_a_layout_was_retired_is_refused_where_a_manifest_would_stand() -> None:
    """Its shards may lie where nobody looks any more; a new name for what stands needs no shards."""
    began = Revision(6)
    assert decide_publish(None, replace(publish(), began=began), Revision(7)).verdict is Verdict.REFUSED
    again = Publish(record(sealed_name=b"new"), record().manifest_id, began)
    assert decide_publish(record(), again, Revision(7)).verdict is Verdict.APPLIED
    assert decide_publish(None, replace(publish(), began=Revision(7)), Revision(7)).verdict is Verdict.APPLIED


def test_older_layouts_retire_only_before_the_newest_and_when_nobody_is_late() -> None:
    """A repairer that looked by another newest layout, or before a late publisher committed, has to look again."""
    command = RetireLayouts(LayoutNumber(3), Revision(9))
    assert decide_retirement([1, 3], is_late=False, command=command).effect
    assert decide_retirement([3], is_late=False, command=command).verdict is Verdict.UNCHANGED
    assert decide_retirement([1, 3, 4], is_late=False, command=command).verdict is Verdict.REFUSED
    assert decide_retirement([1, 3], is_late=True, command=command).verdict is Verdict.REFUSED
    assert decide_retirement([], is_late=False, command=command).verdict is Verdict.REFUSED
