"""The use cases of `tenant` and `token` on two homes of one network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.state import State
from fungistor.catalog.tenants import Tenant, TokenScope
from fungistor.errors import ConflictError, DeniedError, InvalidError, NotFoundError
from fungistor.ids import OWN_TENANT
from fungistor.keys.files import load_root_key, make_root_key, save_node_keys, save_root_key
from fungistor.keys.held import held_node_keys
from fungistor.keys.issue import issue
from fungistor.keys.ring import NodeKeys
from fungistor.keys.table import KeyTable
from fungistor.keys.tokens import parse_token
from fungistor.node.acting import Acting
from fungistor.node.home import Home
from fungistor.node.tenancy import Tenancy, check_name
from fungistor.objects.bearers import BadTokenError, check_token
from fungistor.testing.memory_log import MemoryLog, MemoryLogStore


@dataclass
class House:
    """A home, as far as tenants need one."""

    home: Home
    catalog: Catalog
    keys: NodeKeys
    tenancy: Tenancy


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[tuple[House, House]]:
    store, table = MemoryLogStore(), KeyTable(str(tmp_path / "keys.sqlite"), sync=False)
    made: list[House] = []
    root = b""
    for name in ("one", "two"):
        home = Home(str(tmp_path / name))
        home.prepare()
        path = os.path.join(home.keys, "root.key")
        if made:
            save_root_key(path, root)
        else:
            root = make_root_key(path)
        save_node_keys(os.path.join(home.keys, "node.key"), issue(root, table))
        keys = held_node_keys(os.path.join(home.keys, "node.key"))
        catalog = Catalog(MemoryLog(store), State(str(tmp_path / f"{name}.db")), signer=None)
        made.append(House(home, catalog, keys, Tenancy(home, catalog, keys, table, {}, lambda: 1000.0)))
    yield made[0], made[1]
    for house in made:
        house.catalog.close()
    table.close()


def test_a_tenant_s_key_is_in_the_homes_that_took_it(houses: tuple[House, House]) -> None:
    """Whoever adds it holds it at once, without a restart; another home takes the very same one when it is told to."""
    one, two = houses
    line = one.tenancy.add("museum", 1000, None)
    number = line.tenant.number
    assert (number, line.held, line.tenant.bytes_max) == (1, True, 1000)
    key = one.keys.tenant_key(number)
    assert key != one.keys.tenant_key(OWN_TENANT)
    assert [found.held for found in two.tenancy.lines()] == [True, False]
    acting = Acting("museum", TokenScope.READ)
    with pytest.raises(DeniedError, match="does not hold the key"):
        acting.tenant(two.catalog, two.keys)
    assert two.tenancy.hold(number).held
    assert two.keys.tenant_key(number) == key
    assert acting.tenant(two.catalog, two.keys) == number
    assert len(list(os.scandir(one.home.keys))) == 3  # both files, and the lock


def test_without_the_root_key_no_tenant_comes_to_be(houses: tuple[House, House]) -> None:
    """It is looked for before anything is committed; a root key of another network is refused."""
    one, two = houses
    path = os.path.join(one.home.keys, "root.key")
    kept = load_root_key(path, {})
    os.unlink(path)
    with pytest.raises(NotFoundError):
        one.tenancy.add("museum", None, None)
    make_root_key(path)
    with pytest.raises(DeniedError):
        one.tenancy.add("museum", None, None)
    assert len(two.tenancy.lines()) == 1
    save_root_key(path, kept)
    assert one.tenancy.add("museum", None, None).tenant.number == 1


def test_two_homes_at_once_add_and_change_one_after_the_other(houses: tuple[House, House]) -> None:
    """Each gets a number of its own, though it had not seen the other's; a change that was overtaken is made anew."""
    one, two = houses
    one.catalog.catch_up()
    two.catalog.catch_up()
    assert [
        one.tenancy.add("museum", None, None).tenant.number,
        two.tenancy.add("archive", None, None).tenant.number,
    ] == [
        1,
        2,
    ]
    with pytest.raises(ConflictError, match="archive already"):
        one.tenancy.add("archive", None, None)
    overtaken = False

    def to(tenant: Tenant) -> Tenant:
        nonlocal overtaken
        if not overtaken:
            overtaken = True
            two.tenancy.change(tenant.number, lambda found: replace(found, objects_max=7))
        return replace(tenant, bytes_max=5)

    line = one.tenancy.change(one.tenancy.lines()[1].tenant.number, to)
    assert (line.tenant.bytes_max, line.tenant.objects_max, line.tenant.change) == (5, 7, 2)
    with pytest.raises(ConflictError, match="archive already"):
        one.tenancy.change(line.tenant.number, lambda tenant: replace(tenant, name="archive"))
    assert one.tenancy.revoke_links(line.tenant.number).tenant.link_epoch == 1
    with pytest.raises(InvalidError):
        one.tenancy.remove(OWN_TENANT)
    assert two.tenancy.remove(line.tenant.number, dry_run=True).tenant.name == "museum"
    two.tenancy.remove(line.tenant.number)
    assert [found.tenant.name for found in one.tenancy.lines()] == ["default", "archive"]


def test_a_token_is_told_once_and_good_until_it_is_not(houses: tuple[House, House]) -> None:
    """Every node knows it by its digest; after its end, its revocation or its tenant's it is none, for one reason."""
    one, two = houses
    number = one.tenancy.add("museum", None, None).tenant.number
    line, text = one.tenancy.add_token(number, TokenScope.READ | TokenScope.NAMES, "press", 60)
    shown = parse_token(text)
    assert shown is not None
    assert line.to_json()["scopes"] == ["read", "names"]
    assert text not in str(line.to_json())
    two.catalog.catch_up()
    assert check_token(two.catalog.tenants, text, 1059).tenant == number
    _, other = one.tenancy.add_token(OWN_TENANT, TokenScope.READ, "own", None)
    mixed = f"{text[:21]}{other[21:]}"
    for wrong, now in ((text, 1060), (mixed, 1000), (text + "A", 1000), ("", 1000), (text[:-1], 1000)):
        with pytest.raises(BadTokenError):
            check_token(two.catalog.tenants, wrong, now)
    with pytest.raises(NotFoundError):
        two.tenancy.revoke_token(OWN_TENANT, line.token.id.hex())
    assert two.tenancy.revoke_token(number, text, dry_run=True).token == line.token
    two.tenancy.revoke_token(number, line.token.id.hex())
    one.catalog.catch_up()
    with pytest.raises(BadTokenError):
        check_token(one.catalog.tenants, text, 1000)
    assert one.tenancy.tokens(number) == []


@pytest.mark.parametrize("name", ["", " ", "7", "a\nb", " a", "x" * 65])
def test_what_cannot_be_a_tenant_s_name_is_refused(name: str) -> None:
    """A number would be taken for another tenant's, and what cannot be seen for nothing."""
    with pytest.raises(InvalidError):
        check_name(name)
