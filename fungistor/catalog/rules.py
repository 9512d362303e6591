"""What a command does to the state it meets: pure decisions, taken in the log's order by every node alike.

Two publishers of one root at once: the first in the log sets the manifest. The other, computed against what was there
before, leaves that manifest with its policy and debts alone, but its name, privacy and expiry count, as if it had
published again; it learns so from the verdict `MERGED`. What it stored on members is then nobody's, and gc finds it
through its session. The alternatives were worse: to refuse loses a commit that the user asked for, to let the last
manifest win orphans shards that a third publisher may have reused in the meantime.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from fungistor.catalog.commands import NO_MANIFEST, NO_REVISION, PayOwed, Publish, RetireLayouts
from fungistor.catalog.layouts import PlacePool, SetLayout
from fungistor.catalog.policies import POLICIES_MAX, AddPolicy, ClearLayouts
from fungistor.catalog.record import Record
from fungistor.ids import MemberNumber, PolicyNumber, Revision
from fungistor.placement.policy import DEFAULT_POLICY


class Verdict(IntEnum):
    """How a command ended. Numbers are stored in the state."""

    APPLIED = 0
    """Its effect is in the state."""
    MERGED = 1
    """Another publisher's manifest stands; name, privacy and expiry are this command's."""
    UNCHANGED = 2
    """The state is already so."""
    REFUSED = 3
    """Its precondition does not hold: the catalog moved on."""
    DENIED = 4
    """It is not permitted: to who issued it, or to anybody while a lock holds."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, whether the state changes (a revision), the record or layout to keep, and a refusal's reason."""

    verdict: Verdict
    effect: bool = False
    record: Record | None = None
    reason: str = ""


def refuse(reason: str) -> Decision:
    """The decision of a command whose precondition does not hold."""
    return Decision(Verdict.REFUSED, reason=reason)


def _later(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def decide_publish(
    current: Record | None, command: Publish, retired: Revision = NO_REVISION, changed: Revision = NO_REVISION
) -> Decision:
    """Decide a publish against the object's record at its place in the log.

    `changed`: the revision of the record's last change. A private object is made public only by one who saw it so:
    neither by a publisher that began before, nor by an old entry of one that somebody appends again.
    `retired`: the revision up to which all shards had been moved when layouts were last retired. Whoever began before
    it may have put shards, or reused some, where nobody looks any more.
    """
    new = command.record
    if command.began < retired and (current is None or current.manifest_id != new.manifest_id):
        return refuse("a layout of the pool was retired since this publish began")
    if current is None:
        if command.against != NO_MANIFEST:
            return refuse("the object was unpublished since this publish began")
        return Decision(Verdict.APPLIED, effect=True, record=new)
    if current.tenant != new.tenant:
        return refuse(f"the object belongs to tenant {current.tenant}, not to {new.tenant}")
    # The policy is the manifest's: it says how those stripes were cut and where they lie.
    stands = replace(
        current,
        private=new.private or (current.private and command.began < changed),
        sealed_name=new.sealed_name if new.salt == current.salt else current.sealed_name,
        expires=_later(current.expires, new.expires),
    )
    verdict = Verdict.APPLIED
    if current.manifest_id != new.manifest_id:
        if command.against == current.manifest_id:
            stands = replace(new, published=current.published, expires=stands.expires, private=stands.private)
        else:
            verdict = Verdict.MERGED
    if stands == current:
        return Decision(Verdict.UNCHANGED if verdict is Verdict.APPLIED else verdict)
    return Decision(verdict, effect=True, record=stands)


def decide_payment(current: Record | None, command: PayOwed) -> Decision:
    """Decide a payment against the object's record at its place in the log."""
    if current is None:
        return refuse("the object was unpublished since these debts were paid")
    if current.manifest_id != command.manifest_id:
        return refuse("the object's manifest was replaced since these debts were paid")
    debts: dict[MemberNumber, int] = dict(current.owed)
    for payment in command.payments:
        if debts.get(payment.member) == payment.before:
            debts[payment.member] = payment.after
    owed = tuple((member, shards) for member, shards in debts.items() if shards)
    if owed == current.owed:
        return Decision(Verdict.UNCHANGED)
    return Decision(Verdict.APPLIED, effect=True, record=replace(current, owed=owed))


def decide_layout(newest: SetLayout | None, highest_member: int, command: SetLayout) -> Decision:
    """Decide a layout against the newest one; `highest_member` is the highest member number any layout had."""
    if newest == command:
        return Decision(Verdict.UNCHANGED)
    newest_number = newest.number if newest else 0
    if command.number != newest_number + 1:
        return refuse(f"layout {command.number} does not follow the newest, {newest_number}")
    known = {member.number: member.id for member in newest.members} if newest else {}
    for member in command.members:
        if member.number in known:
            if known[member.number] != member.id:
                return refuse(f"member number {member.number} is {known[member.number]}, not {member.id}")
        elif member.number <= highest_member:
            return refuse(f"member number {member.number} was used before; the next free one is {highest_member + 1}")
    return Decision(Verdict.APPLIED, effect=True)


def decide_policy(standing: Mapping[PolicyNumber, str], highest: int, newest: int, command: AddPolicy) -> Decision:
    """Decide a new policy against the names of those that stand; `highest` is the highest number there ever was,
    `newest` the newest layout's."""
    name = command.policy.name
    if name in (DEFAULT_POLICY.name, *standing.values()):
        return refuse(f"there is a policy {name} already")
    if command.number != highest + 1:
        return refuse(f"policy {command.number} does not follow the last, {highest}")
    if command.layout != newest:
        return refuse(f"layout {command.layout} is not the newest, which is {newest}")
    if len(standing) >= POLICIES_MAX:
        return refuse(f"there are {len(standing)} policies: no more fit")
    return Decision(Verdict.APPLIED, effect=True)


def decide_pool(standing: Collection[PolicyNumber], layout: Decision, command: PlacePool) -> Decision:
    """Decide a layout with tables; `layout` is what was decided of it without them."""
    if layout.effect and {table.policy for table in command.tables} != set(standing):
        return refuse("policies were added or removed since this layout was planned")
    return layout


def decide_clearing(newest: int, left: Collection[int], command: ClearLayouts) -> Decision:
    """Decide whether layouts are done with; `left` are those that are retired and were not cleared."""
    if command.newest != newest:
        return refuse(f"layout {command.newest} is not the newest, which is {newest}")
    if not set(left) & set(command.layouts):
        return Decision(Verdict.UNCHANGED)
    return Decision(Verdict.APPLIED, effect=True)


def decide_retirement(live: Sequence[int], is_late: bool, command: RetireLayouts) -> Decision:
    """Decide whether layouts before the newest go. `live` are the numbers of those that readers look by, rising.

    `is_late`: some object was published after `seen` by a publisher that began before it, so its shards may lie by an
    older layout.
    """
    if not live or live[-1] != command.newest:
        return refuse(f"layout {command.newest} is not the newest, which is {live[-1] if live else 'none'}")
    if len(live) == 1:
        return Decision(Verdict.UNCHANGED)
    if is_late:
        return refuse("objects were published meanwhile whose shards were not yet looked after")
    return Decision(Verdict.APPLIED, effect=True)
