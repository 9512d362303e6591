"""Records and commands for the catalog's tests, told apart by a number."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from blake3 import blake3

from fungistor.catalog.commands import NO_MANIFEST, Body, Command, Publish
from fungistor.catalog.layouts import LayoutMember, SetLayout
from fungistor.catalog.record import Record, Sizes
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, ObjectId, SessionId, TenantNumber


def drawn(text: str, length: int = 32) -> bytes:
    """Bytes that look random and are always the same."""
    return blake3(text.encode()).digest(length)


def record(number: int = 0, *, manifest: str = "first", **changes: Any) -> Record:
    """Object `number` as a 4 GiB file of the usual shape would be recorded, its numbers as long as they get."""
    made = Record(
        object_id=ObjectId(drawn(f"object {number}")),
        tenant=TenantNumber(0),
        policy="default",
        private=False,
        profile=0,
        sizes=Sizes(size=1 << 32, sealed=1 << 32, stored=(5 << 30) + 7, blocks=70_000, stripes=1_024),
        manifest=drawn(f"manifest {number} {manifest}", 100),
        salt=drawn(f"salt {number} {manifest}"),
        list_key=drawn(f"list key {number} {manifest}"),
        sealed_name=drawn(f"name {number}", 32 + 36 + 32 + 16),
        published=1_790_000_000 + number,
    )
    return replace(made, **changes)


def owing(*debts: tuple[int, int]) -> tuple[tuple[MemberNumber, int], ...]:
    """Debts as a record has them."""
    return tuple((MemberNumber(member), shards) for member, shards in debts)


def publish(number: int = 0, *, against: bytes = NO_MANIFEST, **changes: Any) -> Publish:
    """The publish of object `number`."""
    return Publish(record(number, **changes), against)


def command(body: Body, *, session: str | None = None, sequence: int = 0) -> Command:
    """A body in an envelope, under a session of its own unless one is named."""
    drawn_session = os.urandom(16) if session is None else drawn(session, 16)
    return Command(SessionId(drawn_session), sequence, body)


def layout(number: int, members: Iterable[int] = range(1, 6), table: bytes = b"table") -> SetLayout:
    """Layout `number` of these members."""
    return SetLayout(
        number=LayoutNumber(number),
        members=tuple(
            LayoutMember(MemberNumber(m), MemberId(f"m{m:02}"), ("nl", "ams1", f"host{m}"), 1 << 20) for m in members
        ),
        table=table,
        policy=b"policy",
    )
