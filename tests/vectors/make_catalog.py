"""Write tests/vectors/catalog.json: frozen commands of every kind, and bytes that must be refused.

Run `python -m tests.vectors.make_catalog`, and only when the format's version grows.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import libipld

from fungistor.catalog.catalog import sign
from fungistor.catalog.commands import Body, Command, Group, Payment, PayOwed, Publish, RetireLayouts, encode_command
from fungistor.catalog.issuers import ChangeAuthority, RegisterIssuer, Report, RevokeIssuer, Scope
from fungistor.catalog.layouts import LayoutMember, PlacePool, SetLayout
from fungistor.catalog.names import RemoveName, SetName
from fungistor.catalog.policies import AddPolicy, Capacity, ClearLayouts, PolicyTable, RemovePolicy
from fungistor.catalog.record import Record, Sizes, own_list_key
from fungistor.catalog.removal import (
    Collect,
    EndSession,
    Expire,
    Keep,
    KeepObject,
    OpenSession,
    Repack,
    Unpublish,
)
from fungistor.catalog.tenants import AddTenant, AddToken, ChangeTenant, RemoveTenant, RevokeToken, TokenScope
from fungistor.ids import (
    LayoutNumber,
    MemberId,
    MemberNumber,
    ObjectId,
    PolicyNumber,
    Revision,
    SessionId,
    TenantNumber,
)
from fungistor.keys.ring import SigningKey
from fungistor.placement import StoragePolicy


def counting(start: int, length: int) -> bytes:
    """Bytes start, start + 1, ..."""
    return bytes((start + i) % 256 for i in range(length))


def _record(*, debts: tuple[tuple[int, int], ...] = (), expires: int | None = None) -> Record:
    return Record(
        object_id=ObjectId(counting(0x00, 32)),
        tenant=TenantNumber(0),
        policy="default",
        private=False,
        profile=0,
        sizes=Sizes(size=1_000_000, sealed=900_000, stored=1_200_000, blocks=5, stripes=2),
        manifest=counting(0x80, 8),
        salt=counting(0x20, 32),
        list_key=counting(0x40, 32),
        sealed_name=counting(0x60, 24),
        published=1_790_000_000,
        expires=expires,
        owed=tuple((MemberNumber(member), shards) for member, shards in debts),
    )


def _commands() -> list[tuple[str, Body]]:
    member_1 = LayoutMember(MemberNumber(1), MemberId("m01"), ("nl", "ams1"), 100, 52_370_216, 4_895_168)
    member_3 = LayoutMember(MemberNumber(3), MemberId("m03"), (), 0)
    first = _record(debts=((3, 2), (7, 1)))
    payment = Payment(MemberNumber(3), 2, 0)
    name = SetName(
        name_id=counting(0x10, 32),
        tenant=TenantNumber(0),
        key_ref=counting(0x30, 32),
        is_new=True,
        against=None,
        sealed=counting(0x60, 24),
        value_id=counting(0x90, 16),
        at=1_790_000_000,
    )
    repack = Repack(
        first.object_id, first.manifest_id, 1_790_000_100, counting(0x90, 8), counting(0x50, 32), 1_100_000,
        ((MemberNumber(3), 1),), Revision(11),
    )  # fmt: skip
    scopes = TokenScope.READ | TokenScope.PUBLISH
    token = AddToken(
        counting(0xB0, 8), TenantNumber(3), counting(0xC0, 32), scopes, "press", 1_890_000_000, 1_790_000_100
    )
    return [
        ("set layout 1", SetLayout(LayoutNumber(1), (member_1, member_3), counting(0, 6), b"\x01")),
        ("publish with debts", Publish(first)),
        ("publish again with an expiry", Publish(_record(expires=1_890_000_000), first.manifest_id, Revision(7))),
        ("pay a debt", PayOwed(first.object_id, first.manifest_id, (payment,))),
        ("set a new name", name),
        ("set the name again", replace(name, is_new=False, against=1, at=1_790_000_060)),
        ("remove the name", RemoveName(name.name_id, name.tenant, name.key_ref)),
        ("retire layouts", RetireLayouts(LayoutNumber(2), Revision(9))),
        ("report", Report(1, 7, counting(0xA0, 32))),
        ("revoke issuer", RevokeIssuer(counting(0x10, 32), counting(0x20, 8))),
        ("change authority", ChangeAuthority(counting(0x10, 32), counting(0x50, 32))),
        ("group of two", _group(first)),
        ("unpublish", Unpublish(first.object_id, first.manifest_id, 1_790_000_100)),
        ("unpublish with a window", Unpublish(first.object_id, first.manifest_id, 1_790_000_100, 1_790_086_500)),
        ("lock", KeepObject(first.object_id, 1_790_000_100, Keep.LOCK, 1_890_000_000)),
        ("open a session", OpenSession(counting(0xA0, 32), 4096, 1_790_003_700)),
        ("end a session", EndSession(1_790_000_100, leftovers=True)),
        ("expire", Expire(1_790_000_100)),
        ("condemn and forget", Collect(1_790_000_000, (first.manifest_id,))),
        ("repack", repack),
        ("publish with reused blocks", Publish(first, reused_at=Revision(12), began=Revision(7))),
        ("add a tenant", AddTenant(TenantNumber(3), "museum", 5_000_000, None, 1_790_000_100)),
        ("change a tenant", ChangeTenant(TenantNumber(3), 1, "museum", None, 1000, 2)),
        ("remove a tenant", RemoveTenant(TenantNumber(3), 2)),
        ("add a token", token),
        ("revoke a token", RevokeToken(token.id, token.tenant)),
        *_policies(SetLayout(LayoutNumber(2), (member_1, member_3), counting(0, 6), b"")),
    ]


def _policies(layout: SetLayout) -> list[tuple[str, Body]]:
    policy = StoragePolicy("eu", 6, 3, 8192, 2, 1, (("de",), ("nl", "ams1")))
    tables = (PolicyTable(PolicyNumber(1), counting(8, 6)),)
    return [
        ("add policy", AddPolicy(PolicyNumber(1), policy, LayoutNumber(1), counting(0, 6))),
        ("remove policy", RemovePolicy(PolicyNumber(1))),
        ("place pool", PlacePool(layout, tables, (Capacity(MemberNumber(3), 1 << 40),))),
        ("clear layouts", ClearLayouts(LayoutNumber(3), (LayoutNumber(1), LayoutNumber(2)))),
    ]


def _group(record: Record) -> Group:
    session, other = SessionId(counting(0xF0, 16)), SessionId(counting(0x01, 16))
    payment = PayOwed(record.object_id, record.manifest_id, (Payment(MemberNumber(7), 1, 0),))
    return Group((Command(session, 0, payment), Command(other, 5, Report(1, 0, b""))))


def _signed() -> Command:
    """Seed 0x30.. of the authority registers the key of seed 0x50.."""
    authority, node = SigningKey(counting(0x30, 32)), SigningKey(counting(0x50, 32))
    scopes = Scope.PUBLISH | Scope.NAMES
    body = RegisterIssuer(authority.issuer, node.issuer, "paris", scopes, (TenantNumber(0), TenantNumber(3)))
    return sign(Command(SessionId(counting(0xF0, 16)), 99, body), authority, 1_790_000_000)


def _short() -> list[tuple[str, bytes]]:
    """Publishes in their short form: under the salt of another session, of their own, and signed in a group."""
    session, node = SessionId(counting(0xF0, 16)), SigningKey(counting(0x50, 32))
    record = replace(_record(debts=((3, 2),)), salt=session + counting(0x30, 16))
    record = replace(record, list_key=own_list_key(record.object_id, record.salt))
    other = replace(_record(), policy="safe", expires=1_890_000_000)
    parts = (Command(session, 7, Publish(record)), Command(session, 8, EndSession(1_790_000_100, leftovers=False)))
    group = sign(Command(session, 7, Group(parts)), node, 1_790_000_000, short=True)
    return [
        ("short publish", encode_command(Command(session, 5, Publish(record)), short=True)),
        ("short publish of another session's salt", encode_command(Command(session, 6, Publish(other)), short=True)),
        ("short publish in a signed group", encode_command(group, short=True)),
    ]


def _refused_short() -> list[tuple[str, bytes]]:
    fields = libipld.decode_dag_cbor(_short()[0][1])
    record, rest = fields[6][0], fields[6][1:]
    named = [*record[:2], "default", *record[3:]]
    salted = [*record[:7], fields[1] + record[7], *record[8:]]
    keyed = [*record[:8], own_list_key(record[0], fields[1] + record[7]), *record[9:]]
    return [
        ("short publish that names the default policy", libipld.encode_dag_cbor([*fields[:6], [named, *rest]])),
        ("short publish with its own list key", libipld.encode_dag_cbor([*fields[:6], [keyed, *rest]])),
        ("short publish with its own session's salt", libipld.encode_dag_cbor([*fields[:6], [salted, *rest]])),
    ]


def _refused(good: bytes) -> list[tuple[str, bytes]]:
    fields = libipld.decode_dag_cbor(good)
    return [
        ("nothing", b""),
        ("a later version", libipld.encode_dag_cbor([1, *fields[1:]])),
        ("a later kind", libipld.encode_dag_cbor([*fields[:5], 200, fields[6]])),
        ("a session of 15 bytes", libipld.encode_dag_cbor([0, bytes(15), 0, b"", b"", 2, []])),
        ("version 0 in a longer form", b"\x87\x18\x00" + bytes(17)),
        ("a map", libipld.encode_dag_cbor({"version": 0})),
    ]


def vectors() -> dict[str, object]:
    """What the file holds."""
    session = SessionId(counting(0xF0, 16))
    made = [
        (name, encode_command(Command(session, sequence, body))) for sequence, (name, body) in enumerate(_commands())
    ]
    plain = next(data for name, data in made if name == "retire layouts")
    made.append(("register issuer, signed", encode_command(_signed())))
    return {
        "format": "catalog command",
        "version": 0,
        "commands": [{"name": name, "hex": data.hex()} for name, data in made],
        "short": [{"name": name, "hex": data.hex()} for name, data in _short()],
        "refused": [{"name": name, "hex": data.hex()} for name, data in [*_refused(plain), *_refused_short()]],
    }


if __name__ == "__main__":
    Path(__file__).with_name("catalog.json").write_text(json.dumps(vectors(), indent=1) + "\n")
