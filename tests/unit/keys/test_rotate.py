"""Rotation: everything opens by the new keys and nothing by the old ones, however often it is cut short."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from fungistor.errors import ConflictError, DeniedError, NotFoundError
from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.files import load_node_keys, load_root_key, root_key_facts
from fungistor.keys.ring import network_key_of, unwrap, wrap, wrapping_half
from fungistor.keys.table import KeyTable
from fungistor.keys.words import from_lines, to_shares
from fungistor.node import new_keys
from fungistor.node.first_keys import ensure_keys
from fungistor.node.home import Home
from fungistor.node.new_keys import KeyPlaces, bring_back, renew_node, rotate_root, rotate_tenant, set_passphrase
from fungistor.objects.results import no_progress

TENANT = TenantNumber(0)
OBJECTS = 1234


class CutError(Exception):
    """What stands for the process's end."""


@pytest.fixture
def places(tmp_path: Path) -> Iterator[KeyPlaces]:
    home = Home(str(tmp_path / "home"))
    home.prepare()
    keys = ensure_keys(home, lambda _: None, {})
    with closing(KeyTable(home.key_table, sync=False)) as table:
        for number in range(OBJECTS):
            table.put(_id(number), TENANT, wrap(keys.tenant_keys[TENANT], _key(number)))
        table.put(_id(OBJECTS), TenantNumber(7), wrap(b"7" * 32, _key(OBJECTS)))
    yield KeyPlaces(home, {})


def _id(number: int) -> ObjectId:
    return ObjectId(number.to_bytes(32, "big"))


def _key(number: int) -> bytes:
    return number.to_bytes(2, "big") * 16


def _check(places: KeyPlaces, *, old_tenant: bytes | None = None, old_root: bytes | None = None) -> None:
    keys, root = load_node_keys(places.node_file), load_root_key(places.root_file, {})
    keys.check_root(root)
    with closing(KeyTable(places.home.key_table)) as table:
        wrapped = table.get_tenant(TENANT)
        assert wrapped is not None
        assert unwrap(wrapping_half(root), wrapped) == keys.tenant_keys[TENANT]
        for number in range(OBJECTS):
            row = table.get(_id(number))
            assert row is not None
            assert unwrap(keys.tenant_keys[TENANT], row) == _key(number)
            if old_tenant is not None:
                with pytest.raises(DeniedError):
                    unwrap(old_tenant, row)
        if old_root is not None:
            with pytest.raises(DeniedError):
                unwrap(wrapping_half(old_root), wrapped)
        foreign = table.get(_id(OBJECTS))
        assert foreign is not None
        assert unwrap(b"7" * 32, foreign) == _key(OBJECTS)
    assert not [name for name in os.listdir(places.home.keys) if name.endswith(".next")]


def test_a_tenant_gets_another_key(places: KeyPlaces) -> None:
    """Every key of the tenant opens by its new key and by the old one no more; other tenants' are left alone."""
    old = places.node()
    done = rotate_tenant(places, TENANT, no_progress)
    assert (done.keys, done.swept, done.fingerprint) == (OBJECTS, True, old.root_fingerprint)
    _check(places, old_tenant=old.tenant_keys[TENANT])
    assert places.node().signing_key == old.signing_key
    # The old wrapped bytes are in no file of the home: who has the old key finds nothing for it.
    row = wrap(old.tenant_keys[TENANT], _key(5))
    for name in os.listdir(places.home.catalog):
        assert row not in Path(places.home.path("catalog", name)).read_bytes()
    with pytest.raises(NotFoundError, match="no key of tenant 7"):
        rotate_tenant(places, TenantNumber(7), no_progress)


def test_the_root_key_is_rotated(places: KeyPlaces) -> None:
    """Tenants' keys open by the new root key alone, the network stays the same, and a backup of either kind works."""
    old = places.root()
    rotate_root(places)
    _check(places, old_root=old)
    new = places.root()
    assert network_key_of(new) == network_key_of(old) == places.node().network_key
    with pytest.raises(DeniedError, match="is not the one"):
        bring_back(places, old, None)
    os.unlink(places.root_file)
    assert bring_back(places, from_lines(to_shares(new, 2, 3)[1:]), b"secret") is True
    assert root_key_facts(places.root_file)[1] is True
    asked = KeyPlaces(places.home, {}, lambda _: b"secret")
    rotate_root(asked)
    assert root_key_facts(places.root_file)[1] is True
    set_passphrase(asked, None)
    _check(places, old_root=new)


def test_keys_are_issued_again_from_the_root_key(places: KeyPlaces) -> None:
    """A machine that slept through both rotations takes up the new keys by the root key, and stays the same issuer."""
    stale = Path(places.node_file).read_bytes()
    rotate_tenant(places, TENANT, no_progress)
    rotate_root(places)
    now = places.node()
    Path(places.node_file).write_bytes(stale)
    assert renew_node(places) == now
    _check(places)
    environment = {"FUNGISTOR_ROOT_KEY": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="}
    with pytest.raises(DeniedError, match="root key does not open the key of tenant 0"):
        renew_node(KeyPlaces(places.home, environment))
    for rotate in (rotate_root, lambda p: rotate_tenant(p, TENANT, no_progress)):
        with pytest.raises(DeniedError, match="is not the one this node's keys were issued by"):
            rotate(KeyPlaces(places.home, environment))
    _check(places)


@pytest.mark.parametrize("which", ["tenant", "root"])
def test_a_rotation_cut_short_anywhere_is_finished(
    places: KeyPlaces, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before or after every step, nothing is lost: `up` is refused with the way on, and another run finishes it."""
    old = places.node(), places.root()
    steps = 0

    def stepped(act: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **options: object) -> object:
            nonlocal steps
            steps += 1
            if steps == cut:
                raise CutError
            made = act(*arguments, **options)
            steps += 1
            if steps == cut:
                raise CutError
            return made

        return step

    for place, name in (
        (new_keys, "save_node_keys"),
        (new_keys, "save_root_key"),
        (new_keys, "_rename"),
        (KeyTable, "replace"),
        (KeyTable, "replace_tenant"),
        (KeyTable, "sweep"),
    ):
        monkeypatch.setattr(place, name, stepped(getattr(place, name)))

    def rotate() -> None:
        if which == "root":
            rotate_root(places)
        else:
            rotate_tenant(places, TENANT, no_progress)

    cut = 0
    rotate()
    whole = steps
    assert whole >= 8
    refused = 0
    for cut in range(1, whole + 1):
        before = places.node(), places.root()
        steps = 0
        with pytest.raises(CutError):
            rotate()
        cut = 0
        try:
            ensure_keys(places.home, lambda _: None, {})
        except ConflictError as error:
            refused += 1
            assert f"keys rotate --{which}" in (error.hint or "")
            rotate()
        _check(places)
        with suppress(AssertionError):
            assert (places.node(), places.root()) != before
    assert refused >= whole - 4
    _check(
        places,
        old_tenant=old[0].tenant_keys[TENANT] if which == "tenant" else None,
        old_root=old[1] if which == "root" else None,
    )


def test_the_network_stands_still_meanwhile(places: KeyPlaces) -> None:
    """While `up` holds the home no key is changed under it."""
    lock = places.home.lock()
    try:
        for rotate in (rotate_root, renew_node, lambda p: rotate_tenant(p, TENANT, no_progress)):
            with pytest.raises(Exception, match="already runs"):
                rotate(places)
    finally:
        os.close(lock)
    _check(places)


def test_a_root_key_of_another_network_is_not_brought_back(places: KeyPlaces) -> None:
    """By the node's keys, or where those are gone by the key table, a foreign root key is refused."""
    before = Path(places.root_file).read_bytes()
    with pytest.raises(DeniedError, match="fingerprint"):
        bring_back(places, b"x" * 32, None)
    os.unlink(places.node_file)
    with pytest.raises(DeniedError, match="does not open the key of tenant 0"):
        bring_back(places, b"x" * 32, None)
    assert bring_back(places, places.root(), None) is False
    assert Path(places.root_file).read_bytes() == before
