"""Tenants, their quotas and their tokens, as commands are applied."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fungistor.catalog.catalog import Catalog, sign
from fungistor.catalog.commands import NO_MANIFEST, PRIVATE_LEVEL, Body, Command, Publish, level_of
from fungistor.catalog.digest import digest_anew
from fungistor.catalog.issuers import LEVEL, RegisterIssuer, Report, Scope
from fungistor.catalog.record import Record, Sizes
from fungistor.catalog.removal import Expire, Keep, KeepObject, Repack, Unpublish
from fungistor.catalog.rules import Verdict
from fungistor.catalog.state import _FINGERPRINTED as FINGERPRINTED
from fungistor.catalog.state import State
from fungistor.catalog.tenant_rows import FINGERPRINTED as NEW
from fungistor.catalog.tenant_usage import Usage
from fungistor.catalog.tenants import AddTenant, AddToken, ChangeTenant, RemoveTenant, RevokeToken, TokenScope
from fungistor.errors import ConflictError, DeniedError, UnavailableError
from fungistor.ids import OWN_TENANT, Revision, TenantNumber
from fungistor.keys.ring import SigningKey
from fungistor.node.usage import OTHERS, TENANTS_TOLD_MAX, told_usage
from fungistor.testing.memory_log import MemoryLog, MemoryLogStore
from tests.unit.catalog.samples import command, drawn, publish, record

ONE, TWO = TenantNumber(1), TenantNumber(2)
ROOT, NODE, OTHER = (SigningKey(drawn(name)) for name in ("authority", "node", "other node"))
Open = Callable[..., Catalog]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Open]:
    """Opens a node on one shared log, each with a state of its own."""
    store = MemoryLogStore()
    opened: list[Catalog] = []

    def open_node(name: str = "node", signer: SigningKey | None = None) -> Catalog:
        opened.append(Catalog(MemoryLog(store), State(str(tmp_path / f"{name}.db")), signer=signer))
        return opened[-1]

    yield open_node
    for catalog in opened:
        catalog.close()


def tenant(number: int = 1, name: str = "museum", **bounds: int) -> AddTenant:
    return AddTenant(TenantNumber(number), name, bounds.get("bytes_max"), bounds.get("objects_max"), 5)


def sized(number: int, size: int, of: TenantNumber = ONE, **changes: Any) -> Record:
    return record(number, tenant=of, sizes=Sizes(size, size, 2 * size, 3, 1), **changes)


def token(number: int = 1, of: TenantNumber = ONE, **changes: Any) -> AddToken:
    made = AddToken(drawn(f"token {number}", 8), of, drawn(f"digest {number}"), TokenScope.READ, "press", None, 7)
    return replace(made, **changes)


def refused(catalog: Catalog, body: Body) -> str:
    with pytest.raises((ConflictError, DeniedError)) as caught:
        catalog.commit(command(body))
    return caught.value.message


def test_every_network_has_a_tenant_of_its_own(nodes: Open) -> None:
    """It stands before anybody said so, is never added, can be renamed and bounded, and never removed."""
    catalog = nodes()
    [own] = catalog.tenants.all()
    assert (own.number, own.name, own.bytes_max, own.objects_max) == (0, "default", None, None)
    catalog.commit(command(ChangeTenant(OWN_TENANT, 1, "home", 10, None, 0)))
    assert catalog.tenants.tenant(OWN_TENANT) == replace(own, name="home", bytes_max=10, change=1)
    assert "10 bytes" in refused(catalog, Publish(sized(1, 11, OWN_TENANT)))


def test_a_tenant_s_number_and_name_are_never_given_twice(nodes: Open) -> None:
    """A removed tenant's number stays used; its name is free again. Nothing is committed for who does not stand."""
    catalog = nodes()
    assert "no tenant 1" in refused(catalog, Publish(sized(1, 5)))
    catalog.commit(command(tenant()))
    assert "used before" in refused(catalog, tenant(1, "other"))
    assert "museum already" in refused(catalog, tenant(2, "museum"))
    assert "default already" in refused(catalog, tenant(2, "default"))
    catalog.commit(command(RemoveTenant(ONE, 1)))
    assert "was removed" in refused(catalog, Publish(sized(1, 5)))
    assert "was removed" in refused(catalog, token())
    assert "used before" in refused(catalog, tenant())
    catalog.commit(command(tenant(2)))
    assert [t.number for t in catalog.tenants.all()] == [0, 2]


def test_a_tenant_that_has_something_is_not_removed(nodes: Open) -> None:
    """An object, or one that can still be brought back, keeps it; its tokens go with it."""
    catalog = nodes()
    for body in (tenant(), token(), Publish(sized(1, 5))):
        catalog.commit(command(body))
    assert "1 objects" in refused(catalog, RemoveTenant(ONE, 1))
    catalog.commit(command(Unpublish(record(1).object_id, sized(1, 5).manifest_id, 10, 100)))
    assert "1 objects" in refused(catalog, RemoveTenant(ONE, 1))
    catalog.commit(command(Expire(101)))
    catalog.commit(command(RemoveTenant(ONE, 1)))
    found = catalog.tenants.token(token().id)
    assert found is not None
    assert found.revoked


def test_an_old_entry_appended_again_brings_nothing_back(nodes: Open) -> None:
    """Neither a quota that was lowered, nor an epoch of links, a revoked token or a removed tenant."""
    catalog = nodes()
    wide = ChangeTenant(ONE, 1, "museum", 1000, None, 1)
    for body in (tenant(), wide, ChangeTenant(ONE, 2, "museum", 10, None, 2), token(), RevokeToken(token().id, ONE)):
        catalog.commit(command(body))
    assert "changed meanwhile" in refused(catalog, wide)
    assert "was a token" in refused(catalog, token())
    assert "epoch" in refused(catalog, ChangeTenant(ONE, 3, "museum", 10, None, 1))
    catalog.commit(command(RemoveTenant(ONE, 3)))
    assert "used before" in refused(catalog, tenant())


def test_a_quota_is_decided_as_a_publish_is_applied(nodes: Open) -> None:
    """Whoever comes first has the room. What an object has already, a merge, or a smaller content needs none."""
    catalog = nodes()
    catalog.commit(command(tenant(bytes_max=100, objects_max=2)))
    first = sized(1, 60)
    catalog.commit(command(Publish(first)))
    assert "60 of 100 bytes" in refused(catalog, Publish(sized(2, 41)))
    catalog.commit(command(Publish(sized(2, 40))))
    assert "2 of 2 objects" in refused(catalog, Publish(sized(3, 0)))
    assert (
        catalog.commit(command(Publish(replace(first, sealed_name=b"new"), first.manifest_id))).verdict
        is Verdict.APPLIED
    )
    assert catalog.commit(command(Publish(sized(1, 99, manifest="second")))).verdict is Verdict.MERGED
    larger = Publish(sized(1, 61, manifest="third"), first.manifest_id)
    assert "takes 1 more" in refused(catalog, larger)
    catalog.commit(command(Publish(sized(1, 20, manifest="fourth"), first.manifest_id)))
    assert catalog.tenants.usage(ONE) == Usage(2, 60, 120)
    catalog.commit(command(ChangeTenant(ONE, 1, "museum", 0, 0, 0)))
    assert "60 of 0 bytes" in catalog.tenants.why_no_room(ONE, 1, 0)
    assert not catalog.tenants.why_no_room(ONE, 0, 0)


def test_usage_is_what_the_records_say_whatever_happens_to_them(nodes: Open) -> None:
    """After any history the sums are those counted anew, on a node that follows command by command, and on one that
    takes all at once; and both have one digest, though reports stand in between."""
    chance = random.Random(20261121)
    catalog = nodes()
    catalog.commit(command(tenant()))
    catalog.commit(command(tenant(2, "archive", objects_max=4)))
    now = 100
    for step in range(400):
        number, of = chance.randrange(6), TenantNumber(chance.randrange(3))
        made = sized(10 * of + number, chance.randrange(50), of, manifest=f"manifest {step}")
        standing = catalog.record(made.object_id)
        against = NO_MANIFEST if standing is None else standing.manifest_id
        now += chance.randrange(3)
        bodies: list[Body] = [
            Publish(replace(made, expires=chance.choice((None, now + 5))), chance.choice((against, NO_MANIFEST))),
            Unpublish(made.object_id, against or bytes(16), now, chance.choice((None, now + 9))),
            KeepObject(made.object_id, now, Keep.UNDO),
            Expire(now),
            Report(LEVEL, 0, b""),
        ]
        if standing is not None:
            packed = drawn(f"packed {step}", 100)
            bodies.append(Repack(made.object_id, against, now, packed, bytes(32), 77, (), Revision(0)))
            bodies.append(Publish(standing, bytes(16)))
        catalog.commit_all([command(chance.choice(bodies)) for _ in range(chance.randrange(1, 4))])
        anew = {of: usage for of, usage in catalog.tenants.usage_anew().items() if usage.objects}
        assert {of: u for of in (0, 1, 2) if (u := catalog.tenants.usage(TenantNumber(of))).objects} == anew, step
    late = nodes("late")
    late.catch_up()
    assert late._state.fingerprint() == catalog._state.fingerprint()
    assert late._state.is_sound()
    assert [late.tenants.usage(number) for number in (OWN_TENANT, ONE, TWO)] == [
        catalog.tenants.usage(number) for number in (OWN_TENANT, ONE, TWO)
    ]


def test_a_state_of_an_earlier_program_is_counted_when_it_is_taken_over(nodes: Open, tmp_path: Path) -> None:
    """A snapshot of a program that counted nothing gives the sums all the same."""
    catalog = nodes()
    catalog.commit(command(publish(1)))
    with catalog._state._database.write() as sql:
        for table in ("usage", "tenant", "token"):  # as that program's state had none of them
            sql.execute(f"DROP TABLE {table}")
        sql.execute("UPDATE digest SET sum = ?", (digest_anew(sql, [q for q in FINGERPRINTED if q not in NEW]),))
    with catalog.dump() as (head, chunks):
        stream = [bytes(chunk) for chunk in chunks]
    assert "usage" not in dict(head.tables)
    fresh = State(str(tmp_path / "fresh.db"))
    try:
        fresh.restore(stream, head.log, head.applied)
        assert fresh.tenants.usage(OWN_TENANT) == Usage().with_record(record(1))
        assert fresh.is_sound()
    finally:
        fresh.close()


def test_tenants_go_over_with_a_snapshot(nodes: Open, tmp_path: Path) -> None:
    """A node that takes a snapshot in place of the log has the same tenants, quotas, sums and tokens."""
    catalog = nodes()
    for body in (tenant(bytes_max=100), tenant(2, "archive"), token(), token(2), RevokeToken(token(2).id, ONE)):
        catalog.commit(command(body))
    catalog.commit(command(Publish(sized(1, 60))))
    fresh = State(str(tmp_path / "fresh.db"))
    try:
        with catalog.dump() as (head, chunks):
            fresh.restore(chunks, head.log, head.applied)
        assert fresh.tenants.all() == catalog.tenants.all()
        assert fresh.tenants.usage(ONE) == Usage(1, 60, 120)
        assert fresh.tenants.why_no_room(ONE, 41, 1)
        for number in (1, 2):
            assert fresh.tenants.token(token(number).id) == catalog.tenants.token(token(number).id)
        assert fresh.fingerprint() == catalog._state.fingerprint()
    finally:
        fresh.close()


def test_tokens_are_digests_that_end_or_are_revoked(nodes: Open) -> None:
    """One id is one token; another tenant neither lists nor revokes it; it is good until its time."""
    catalog = nodes()
    for body in (tenant(), tenant(2, "archive"), token(expires=50), token(2)):
        catalog.commit(command(body))
    assert [found.id for found in catalog.tenants.tokens(ONE)] == sorted([token(1).id, token(2).id])
    assert catalog.tenants.tokens(TWO) == []
    assert "has no token" in refused(catalog, RevokeToken(token().id, TWO))
    found = catalog.tenants.token(token().id)
    assert found is not None
    assert (found.is_good(49.9), found.is_good(50)) == (True, False)
    assert "token" in refused(catalog, token(2, label="another"))
    catalog.commit(command(RevokeToken(token(2).id, ONE)))
    assert catalog.commit(command(RevokeToken(token(2).id, ONE))).verdict is Verdict.UNCHANGED
    assert [found.id for found in catalog.tenants.tokens(ONE)] == [token(1).id]


def test_a_node_limited_to_a_tenant_changes_nothing_of_another(nodes: Open) -> None:
    """Quotas and tokens need the scope admin, and the tenant among those of the issuer."""
    catalog = nodes(signer=NODE)

    def register(scopes: Scope, tenants: tuple[TenantNumber, ...] | None) -> None:
        body = RegisterIssuer(ROOT.issuer, NODE.issuer, "node", scopes, tenants)
        catalog.commit(sign(command(body), ROOT, 1))

    register(Scope.ADMIN, None)
    catalog.commit(command(tenant()))
    catalog.commit(command(tenant(2, "archive")))
    register(Scope.ADMIN, (TWO,))
    for body in (ChangeTenant(ONE, 1, "museum", None, None, 0), token(), RemoveTenant(ONE, 1), tenant(3, "third")):
        assert "for tenant" in refused(catalog, body)
    catalog.commit(command(token(of=TWO)))
    register(Scope.PUBLISH, (TWO,))
    assert "scope admin" in refused(catalog, ChangeTenant(TWO, 1, "archive", 1 << 50, None, 0))


def test_a_private_object_is_made_public_by_one_who_saw_it_so_alone(nodes: Open) -> None:
    """A publisher that began before, and an old entry appended again, leave it private, whatever they say."""
    catalog = nodes()
    public = sized(1, 5, OWN_TENANT)
    old = Publish(public, NO_MANIFEST, catalog.revision)
    catalog.commit(command(old))
    began = catalog.revision
    catalog.commit(command(Publish(replace(public, private=True), public.manifest_id, began)))

    def is_private() -> bool:
        found = catalog.record(public.object_id)
        assert found is not None
        return found.private

    assert is_private()
    for late in (old, replace(old, began=began), Publish(public, public.manifest_id, began)):
        catalog.commit(command(late))
        assert is_private()
    second = sized(1, 5, OWN_TENANT, manifest="second")
    catalog.commit(command(Publish(second, NO_MANIFEST, began)))
    catalog.commit(command(Publish(second, public.manifest_id, began)))
    assert is_private()
    catalog.commit(command(Publish(second, second.manifest_id, catalog.revision)))
    assert not is_private()


def test_a_private_object_waits_for_every_node_to_know_what_that_is(nodes: Open) -> None:
    """A node of an earlier level would serve it to anybody, so the publish ends before the append."""
    body = Publish(replace(sized(1, 5, OWN_TENANT), private=True))
    assert (level_of(body), level_of(Publish(sized(1, 5)))) == (PRIVATE_LEVEL, 0)
    catalog, old = nodes("node", NODE), nodes("old", OTHER)
    for signer, name in ((NODE, "node"), (OTHER, "old")):
        catalog.commit(sign(command(RegisterIssuer(ROOT.issuer, signer.issuer, name, Scope(31))), ROOT, 1))
    catalog.report()
    old.commit(Command(command(publish(9)).session, 0, Report(PRIVATE_LEVEL - 1, 0, b"")))
    catalog.catch_up()
    with pytest.raises(UnavailableError, match="old would stand still"):
        catalog.commit(command(body))
    old.report()
    assert catalog.commit(command(body)).verdict is Verdict.APPLIED


def test_operators_are_told_of_so_many_tenants_by_name_and_of_the_rest_as_one(nodes: Open) -> None:
    """Whatever the number of tenants, series are bounded, and the sums are whole."""
    catalog = nodes()
    catalog.commit_all([command(tenant(number, f"tenant {number}")) for number in range(1, 131)])
    catalog.commit_all([command(Publish(sized(number, 10, TenantNumber(number)))) for number in range(1, 131)])
    told = told_usage(catalog.tenants)
    assert [line["tenant"] for line in told[:2]] == ["default", "tenant 1"]
    assert (len(told), told[-1]["tenant"], told[-1]["bytes"]) == (TENANTS_TOLD_MAX + 1, OTHERS, 310)
    assert sum(int(str(line["objects"])) for line in told) == 130
