"""Who may write: signatures, scopes and tenants, decided as commands are applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import libipld
import pytest

from fungistor.catalog.catalog import Catalog, sign
from fungistor.catalog.commands import Body, Command, Kind, PayOwed, RetireLayouts
from fungistor.catalog.issuers import ALL_SCOPES, LEVEL, RegisterIssuer, Report, RevokeIssuer, Scope, issuer_id
from fungistor.catalog.log import START
from fungistor.catalog.record import Sizes, own_list_key
from fungistor.catalog.removal import EndSession, OpenSession
from fungistor.catalog.rules import Verdict
from fungistor.catalog.state import State
from fungistor.catalog.tenants import AddTenant
from fungistor.coding.compress import Compression
from fungistor.coding.manifest import ManifestRoot, RootRef, Slot
from fungistor.coding.page_codec import encode_root
from fungistor.dag.cid import CID, RAW
from fungistor.errors import ConflictError, DeniedError, UnavailableError
from fungistor.ids import LayoutNumber, Revision, StripeId, TenantNumber
from fungistor.keys.ring import SigningKey
from fungistor.objects.naming import ObjectName, seal_first_name
from fungistor.testing.memory_log import MemoryLog, MemoryLogStore
from tests.unit.catalog.samples import command, drawn, layout, publish, record

ROOT, NODE, OTHER = (SigningKey(drawn(name)) for name in ("authority", "node", "other node"))

Open = Callable[..., Catalog]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Open]:
    """Opens a node on one shared log, each with a state of its own."""
    store = MemoryLogStore()
    opened: list[Catalog] = []

    def open_node(name: str, signer: SigningKey | None = None) -> Catalog:
        opened.append(Catalog(MemoryLog(store), State(str(tmp_path / f"{name}.db")), signer=signer))
        return opened[-1]

    yield open_node
    for catalog in opened:
        catalog.close()


def by_root(body: Body, signer: SigningKey = ROOT) -> Command:
    return sign(command(body), signer, 1_790_000_000)


def registration(
    node: SigningKey, scopes: Scope = ALL_SCOPES, tenants: tuple[int, ...] | None = None, name: str = "node"
) -> RegisterIssuer:
    numbers = None if tenants is None else tuple(TenantNumber(number) for number in tenants)
    return RegisterIssuer(ROOT.issuer, node.issuer, name, scopes, numbers)


def reason(catalog: Catalog, sent: Command) -> str:
    with pytest.raises(DeniedError) as caught:
        catalog.commit(sent)
    return caught.value.message


def test_unsigned_commands_count_until_somebody_is_registered(nodes: Open) -> None:
    """An older network goes on as it was; from the first registration on, who does not sign is refused."""
    plain, signing = nodes("plain"), nodes("signing", NODE)
    assert plain.commit(command(publish(1))).verdict is Verdict.APPLIED
    assert signing.commit(command(publish(2))).verdict is Verdict.APPLIED
    signing.commit(by_root(registration(NODE)))
    assert reason(plain, command(publish(3))) == "the command is not signed"
    assert signing.commit(command(publish(4))).verdict is Verdict.APPLIED
    plain.catch_up()
    assert plain.status().objects == signing.status().objects == 3


def test_a_stranger_a_forger_and_a_revoked_node_are_refused_everywhere_alike(nodes: Open) -> None:
    """Each is denied with its reason, nothing of it takes effect, and a node that replays later ends the same."""
    good, stranger = nodes("good", NODE), nodes("stranger", OTHER)
    good.commit(by_root(registration(NODE)))
    assert "is not registered" in reason(stranger, command(publish(1)))
    forged = replace(sign(command(publish(2)), OTHER, 1), issuer=issuer_id(NODE.issuer))
    assert reason(good, forged) == "its signature is not that of node node"
    changed = replace(sign(command(publish(3)), NODE, 1), body=publish(4))
    assert "its signature is not" in reason(good, changed)
    good.commit(by_root(registration(OTHER, name="other")))
    stranger.commit(command(publish(5)))
    good.commit(by_root(RevokeIssuer(ROOT.issuer, issuer_id(OTHER.issuer))))
    assert reason(stranger, command(publish(6))) == "node other was revoked"
    with pytest.raises(ConflictError, match="was revoked; issue it new keys"):
        good.commit(by_root(registration(OTHER, name="other")))
    late = nodes("late")
    for catalog in (good, stranger, late):
        catalog.catch_up()
    assert [line.sizes.size for line in good.records()] == [record(5).sizes.size]
    assert good._state.fingerprint() == stranger._state.fingerprint() == late._state.fingerprint()


def test_only_the_root_key_lets_anybody_in(nodes: Open) -> None:
    """A node with every scope cannot register, revoke or take the place of the authority; nor can another root key."""
    catalog = nodes("node", NODE)
    assert "not that of the root key" in reason(catalog, by_root(registration(NODE), OTHER))
    catalog.commit(by_root(registration(NODE)))
    assert "not that of the root key" in reason(catalog, by_root(registration(OTHER), NODE))
    usurper = replace(registration(OTHER), authority=OTHER.issuer)
    assert "only this network's root key" in reason(catalog, by_root(usurper, OTHER))
    revoking = RevokeIssuer(ROOT.issuer, issuer_id(NODE.issuer))
    assert "not that of the root key" in reason(catalog, by_root(revoking, NODE))
    assert [issuer.name for issuer in catalog.issuers()] == ["node"]


def test_scopes_and_tenants_bound_what_a_node_does(nodes: Open) -> None:
    """A publisher of tenant 1 publishes and pays for it, and neither for another nor lays out the pool."""
    catalog = nodes("node", NODE)
    catalog.commit(by_root(registration(OTHER, name="all")))
    other = nodes("other", OTHER)
    other.commit(command(publish(8)))
    other.commit(command(AddTenant(TenantNumber(1), "museum", None, None, 0)))
    catalog.commit(by_root(registration(NODE, Scope.PUBLISH, (1,))))
    assert catalog.commit(command(publish(1, tenant=TenantNumber(1)))).verdict is Verdict.APPLIED
    assert reason(catalog, command(publish(2))) == "node node may not publish for tenant 0"
    paying = PayOwed(record(8).object_id, record(8).manifest_id, ())
    assert reason(catalog, command(paying)) == "node node may not pay owed for tenant 0"
    assert reason(catalog, command(layout(1))) == "node node may not set layout: it has not the scope pool"
    catalog.commit(by_root(registration(NODE, Scope.POOL, ())))
    assert "it has not the scope publish" in reason(catalog, command(publish(3, tenant=TenantNumber(1))))
    catalog.commit(command(layout(1)))
    assert catalog.commit(command(paying)).verdict is Verdict.UNCHANGED


def test_a_group_is_one_entry_and_each_command_in_it_decided_alone(nodes: Open) -> None:
    """Many publishes share an entry and a signature; one that is refused leaves the others, and all have outcomes."""
    catalog = nodes("node", NODE)
    catalog.commit(by_root(registration(NODE, Scope.PUBLISH, (0,))))
    batch = [command(publish(n)) for n in range(200)]
    batch.append(command(publish(300, tenant=TenantNumber(1))))
    batch.append(command(publish(301, against=drawn("gone", 16))))
    outcomes = catalog.commit_all(batch)
    assert [o.verdict for o in outcomes] == [Verdict.APPLIED] * 200 + [Verdict.DENIED, Verdict.REFUSED]
    assert catalog.first_entry() == 1
    assert [logged.number for logged in catalog.logged(1)] == [2] * 202
    assert catalog.commit_all(batch) == outcomes
    assert len(list(catalog._log.read(START))) == 2
    assert catalog.commit(batch[7]) == outcomes[7]
    assert catalog._state.is_sound()


def test_an_object_in_a_group_takes_less_than_400_bytes(nodes: Open) -> None:
    """A record of the longest numbers, its envelope and its share of the signature stay under the bound."""
    catalog = nodes("node", NODE)
    catalog.commit(by_root(registration(NODE)))
    kept = record(0).sealed_name[:100], record(0).manifest[:80]  # a small object's: a CID, 32 bytes of name, one slot
    batch = [command(publish(n, sealed_name=kept[0], manifest=kept[1])) for n in range(1000)]
    catalog.commit_all(batch)
    [*_, entry] = catalog._log.read(START)
    assert len(entry.payload) / len(batch) <= 400


def test_a_small_object_alone_takes_less_than_400_bytes(nodes: Open) -> None:
    """A file of 3 KB under a name of 20 letters, published alone and signed, with the end of its session: at most 400
    bytes of the log; what it is read as is what was sent."""
    catalog = nodes("node", NODE)
    catalog.commit(by_root(registration(NODE)))
    sent = command(OpenSession(drawn("secret"), 256, 1_790_021_600))
    catalog.commit(sent)
    name = seal_first_name(drawn("key"), ObjectName(CID(1, RAW, b"\x12\x20" + drawn("hash")), "n" * 20), drawn("salt"))
    salt = sent.session + drawn("salt", 16)
    small = publish(
        sealed_name=name,
        list_key=own_list_key(record(0).object_id, salt),
        manifest=encode_root(small_root()),
        salt=salt,
        sizes=Sizes(size=3000, sealed=3100, stored=16_384, blocks=1, stripes=1),
    )
    one = Command(sent.session, 1, replace(small, began=Revision(1_000_000)))
    catalog.commit_all([one, Command(sent.session, 2, EndSession(1_790_000_100, leftovers=False))])
    [*_, entry] = catalog._log.read(START)
    assert len(entry.payload) <= 400
    assert [logged.command.body for logged in catalog.logged(2)][:1] == [one.body]
    assert catalog.record(small.record.object_id) == small.record


def small_root() -> ManifestRoot:
    """That of a small file alone: five copies."""
    slot = Slot(StripeId(drawn("stripe")), 1, 4, 3_328, drawn("content root"), LayoutNumber(100))
    list_page, map_page = RootRef(0, 22, 6, Compression.STORED), RootRef(22, 3_100, 3_080, Compression.STORED)
    return ManifestRoot(slot, list_page, map_page, drawn("salt"))


def test_publishes_are_short_when_every_node_reads_them(nodes: Open) -> None:
    """While a node reports level 1 publishes stand in their long form, alone and in groups; then in the short one. Both
    are signed as they stand, and what was committed in one form is known in the other."""
    old, new = nodes("old", OTHER), nodes("new", NODE)
    new.commit(by_root(registration(NODE, name="new")))
    new.commit(by_root(registration(OTHER, name="old")))
    old.commit(command(Report(1, 0, b"")))
    assert new.report()
    sent = [command(publish(number)) for number in range(6)]

    def kinds() -> list[int]:
        [*_, entry] = new._log.read(START)
        found = libipld.decode_dag_cbor(entry.payload)
        return [row[2] for row in found[6][0]] if found[5] == Kind.GROUP else [found[5]]

    new.commit(sent[0])
    assert kinds() == [Kind.PUBLISH]
    assert [new.knows_short_names, new.knows_key_pages] == [False, False]
    new.commit_all(sent[1:3])
    assert kinds() == [Kind.PUBLISH] * 2
    old.commit(command(Report(2, 0, b"")))
    new.catch_up()
    assert [new.knows_short_names, new.knows_key_pages] == [True, False]
    new.commit(sent[3])
    assert kinds() == [Kind.SHORT_PUBLISH]
    new.commit_all(sent[4:])
    assert kinds() == [Kind.SHORT_PUBLISH] * 2
    old.commit(command(Report(3, 0, b"")))
    new.catch_up()
    assert [new.knows_short_names, new.knows_key_pages] == [True, True]
    assert [outcome.verdict for outcome in new.commit_all(sent)] == [Verdict.APPLIED] * 6
    assert old.catch_up()
    assert old._state.fingerprint() == new._state.fingerprint()


def test_kinds_of_a_later_program_wait_for_every_node(nodes: Open) -> None:
    """While a node reports an older level, what it could not apply is not written: groups go one by one."""
    old, new = nodes("old", OTHER), nodes("new", NODE)
    new.commit(by_root(registration(NODE, name="new")))
    new.commit(by_root(registration(OTHER, name="old")))
    old.commit(command(Report(0, 0, b"")))
    assert new.report()
    before = len(list(new._log.read(START)))
    new.commit_all([command(publish(1)), command(publish(2))])
    assert len(list(new._log.read(START))) == before + 2
    with pytest.raises(UnavailableError, match="a newer fungistor on every node of the network: old"):
        new.commit(command(RetireLayouts(LayoutNumber(1), Revision(0))))
    new.commit(by_root(RevokeIssuer(ROOT.issuer, issuer_id(OTHER.issuer))))
    new.commit_all([command(publish(3)), command(publish(4))])
    assert len(list(new._log.read(START))) == before + 4
    assert [report.level for report in new.reports()] == [LEVEL]


def test_a_node_whose_state_differs_is_told_by_its_report(nodes: Open) -> None:
    """Nodes that applied the same agree at their reports; after a row changed by itself the others say who differs."""
    one, two = nodes("one", NODE), nodes("two", OTHER)
    one.commit(by_root(registration(NODE, name="one")))
    one.commit(by_root(registration(OTHER, name="two")))
    for number in range(2):
        one.commit(command(publish(number)))
        assert one.report()
        assert not one.report()
        assert two.catch_up()
        assert two.report()
    one.catch_up()
    assert {report.name: report.agrees for report in one.reports()} == {"one": True, "two": True}
    with two._state._database.write() as connection:
        connection.execute("UPDATE record SET began = began + 7")
    for number in range(2, 4):
        one.commit(command(publish(number)))
        one.report()
        two.catch_up()
        two.report()
    one.catch_up()
    assert {report.name: report.agrees for report in one.reports()} == {"one": True, "two": False}
    assert {report.name: report.agrees for report in two.reports()} == {"one": False, "two": True}


def test_the_kept_digest_is_the_one_of_all_rows(nodes: Open) -> None:
    """After publishes again, payments, layouts and forgotten rows the digest equals one computed anew."""
    catalog = nodes("node", NODE)
    assert catalog._state.is_sound()
    catalog.commit(by_root(registration(NODE)))
    catalog.commit(command(layout(1)))
    for number in (1, 2, 1, 1):
        catalog.commit(command(publish(number, manifest=f"of {number}", expires=1_900_000_000 + catalog.revision)))
        assert catalog._state.is_sound()
    with catalog._state._database.write() as connection:
        connection.execute("PRAGMA recursive_triggers=OFF")
        connection.execute("INSERT OR REPLACE INTO retired SELECT seen + 1 FROM retired")
        connection.execute("DROP TRIGGER digest_record_delete")
        connection.execute("DELETE FROM record")
    assert not catalog._state.is_sound()
