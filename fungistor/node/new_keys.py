"""A home's keys, changed while its network stands still: rotated, put under a passphrase, taken out and brought back.

What comes is written beside what is, as `*.next`, before anything is wrapped anew. So at any moment there are keys for
all that is wrapped, and a rotation that was cut short is finished by running it again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.issuers import ChangeAuthority
from fungistor.catalog.state import State
from fungistor.errors import ConflictError, DeniedError, InvalidError, NotFoundError
from fungistor.ids import TenantNumber
from fungistor.keys.files import (
    ROOT_KEY_VARIABLE,
    load_node_keys,
    load_root_key,
    root_key_facts,
    save_node_keys,
    save_root_key,
)
from fungistor.keys.issue import renew
from fungistor.keys.passphrase import Ask, passphrase_from
from fungistor.keys.ring import (
    KEY_BYTES,
    NodeKeys,
    authority_of,
    fingerprint,
    network_key_of,
    rotated_root,
    unwrap,
    wrap,
    wrapping_half,
)
from fungistor.keys.rotate import rewrap_objects, rewrap_tenants
from fungistor.keys.store import KeyStore
from fungistor.keys.table import KeyTable
from fungistor.node.catalog_log import open_home_log
from fungistor.node.catalog_place import open_keys
from fungistor.node.config import load_config
from fungistor.node.enrolment import commit_as
from fungistor.node.files import sync_folder
from fungistor.node.home import Home
from fungistor.objects.results import Progress

NEXT = ".next"


@dataclass(frozen=True, slots=True)
class KeyPlaces:
    """Where a home's keys lie, and how they are opened."""

    home: Home
    environ: Mapping[str, str]
    prompt: Ask | None = None

    @property
    def root_file(self) -> str:
        return os.path.join(self.home.keys, "root.key")

    @property
    def node_file(self) -> str:
        return os.path.join(self.home.keys, "node.key")

    @property
    def is_root_given(self) -> bool:
        return bool(self.environ.get(ROOT_KEY_VARIABLE))

    def root(self) -> bytes:
        """The root key. Raises as `load_root_key`."""
        return load_root_key(self.root_file, self.environ, self.prompt)

    def node(self) -> NodeKeys:
        """The node's keys. Raises as `load_node_keys`."""
        return load_node_keys(self.node_file)

    def passphrase(self, what: str) -> bytes:
        """A passphrase from the file that is named, or from the person. Raises: DeniedError, InvalidError."""
        return passphrase_from(self.environ, self.prompt)(what)


@dataclass(frozen=True, slots=True)
class Rotated:
    """What was rotated, and the root key's fingerprint afterwards. `swept`: the engine has no old wrapped key left."""

    what: str
    keys: int
    fingerprint: str
    swept: bool


def refuse_half_rotated(home: Home) -> None:
    """Raises: ConflictError where a rotation of this home's keys was cut short."""
    for name, words in (("node.key", "--tenant"), ("root.key", "--root")):
        if os.path.exists(os.path.join(home.keys, name + NEXT)):
            raise ConflictError(
                "a rotation of this network's keys was cut short, so some of them open by the old key, some by the new",
                hint=f"`fungistor keys rotate {words}` finishes it",
            )


def rotate_tenant(places: KeyPlaces, tenant: TenantNumber, progress: Progress) -> Rotated:
    """Give a tenant another key, and wrap all that the old one wrapped under it. May be repeated when cut short.

    Raises:
        ConflictError: the network runs, or the other kind of rotation was cut short.
        DeniedError: a key does not open what it should.
        NotFoundError: this node does not hold that tenant.
    """
    with _standing_still(places.home, unless="node.key") as table_of:
        keys, root = places.node(), places.root()
        keys.check_root(root)
        if tenant not in keys.tenant_keys:
            raise NotFoundError(f"this node holds no key of tenant {tenant}", hint="`fungistor keys list` lists them")
        with contextlib.closing(table_of(keys)) as table:
            _check_table(table, root, tenant)
            ahead = places.node_file + NEXT
            if not os.path.exists(ahead):
                drawn = {**keys.tenant_keys, tenant: secrets.token_bytes(KEY_BYTES)}
                save_node_keys(ahead, replace(keys, tenant_keys=drawn))
            coming = load_node_keys(ahead)
            coming.check_root(root)
            old, new = keys.tenant_keys[tenant], coming.tenant_keys[tenant]
            if old == new:
                raise ConflictError(
                    "a rotation of another tenant was cut short",
                    hint="`fungistor keys rotate --tenant N` with that one",
                )
            count = rewrap_objects(table, tenant, old, new, lambda done: progress(done, None, "keys"))
            table.replace_tenant(tenant, wrap(wrapping_half(root), new))
            _rename(ahead, places.node_file)
            swept = table.sweep()
    return Rotated(f"tenant {tenant}", count, keys.root_fingerprint, swept)


def rotate_root(places: KeyPlaces) -> Rotated:
    """Draw another root key, and wrap the tenants' keys under it. May be repeated when cut short. Raises as above."""
    with _standing_still(places.home, unless="root.key") as table_of:
        ahead = places.root_file + NEXT
        keys, old = places.node(), places.root()
        with contextlib.closing(table_of(keys)) as table:
            if not os.path.exists(ahead):
                keys.check_root(old)
                sealed = not places.is_root_given and root_key_facts(places.root_file)[1]
                passphrase = places.passphrase(places.root_file) if sealed else None
                save_root_key(ahead, rotated_root(secrets.token_bytes(KEY_BYTES), old), passphrase)
            new = load_root_key(ahead, {**places.environ, ROOT_KEY_VARIABLE: ""}, places.prompt)
            if keys.root_fingerprint != fingerprint(new):
                keys.check_root(old)
            _change_authority(places.home, old, new)
            tenants = rewrap_tenants(table, wrapping_half(old), wrapping_half(new))
            save_node_keys(places.node_file, replace(keys, root_fingerprint=fingerprint(new)))
            _rename(ahead, places.root_file)
            swept = table.sweep()
    return Rotated("root", len(tenants), fingerprint(new), swept)


def renew_node(places: KeyPlaces) -> NodeKeys:
    """Take the tenants' keys anew from the key table, after they were rotated on another machine.

    Raises: DeniedError where the root key is not this network's.
    """
    with _standing_still(places.home, unless=None) as table_of:
        keys, root = places.node(), places.root()
        with contextlib.closing(table_of(keys)) as table:
            made = renew(root, table, keys.signing_key, sorted(keys.tenant_keys))
        if made.network_key != keys.network_key:
            raise DeniedError(
                f"the root key (fingerprint {fingerprint(root)}) is of another network",
                hint="give this network's own: `fungistor keys import` takes its backup",
            )
        save_node_keys(places.node_file, made)
        return made


def set_passphrase(places: KeyPlaces, passphrase: bytes | None) -> None:
    """Write the root key's file anew, under a passphrase or under none. Raises as `load_root_key`."""
    if places.is_root_given:
        raise InvalidError(
            f"the root key comes from {ROOT_KEY_VARIABLE}, which has no passphrase", hint="unset it, to change the file"
        )
    refuse_half_rotated(places.home)
    save_root_key(places.root_file, places.root(), passphrase)


def bring_back(places: KeyPlaces, root: bytes, passphrase: bytes | None) -> bool:
    """Write a recovered root key into this home; False where the file holds it already.

    Raises:
        ConflictError: another root key's file is there.
        DeniedError: it is not the root key of this home's node or of its key table.
    """
    places.home.prepare()
    refuse_half_rotated(places.home)
    _check_is_ours(places, root)
    try:
        held, _ = root_key_facts(places.root_file)
    except NotFoundError:
        save_root_key(places.root_file, root, passphrase, replace=False)
        return True
    if held != fingerprint(root):
        raise ConflictError(
            f"{places.root_file} holds another root key (fingerprint {held}, not {fingerprint(root)})",
            hint="move it away first, if it is not needed any more",
        )
    return False


def _change_authority(home: Home, old: bytes, new: bytes) -> None:
    """Have the catalog take commands about nodes by the new root key alone."""
    config = load_config(home)
    state = State(home.catalog_state)
    catalog_log, _ = open_home_log(home, config, network_key_of(old), state)
    catalog = Catalog(catalog_log, state, is_remote=config.catalog is not None)
    with contextlib.closing(catalog):
        catalog.catch_up()
        standing, before, after = catalog.authority(), authority_of(old), authority_of(new)
        if standing in (None, after.issuer):
            return
        body = ChangeAuthority(before.issuer, after.issuer)
        commit_as(catalog, before, body)


def _check_is_ours(places: KeyPlaces, root: bytes) -> None:
    home = places.home
    with contextlib.suppress(NotFoundError):
        places.node().check_root(root)
        return
    if not os.path.exists(home.key_table):
        return
    with contextlib.closing(KeyTable(home.key_table)) as table:
        for tenant in table.tenants()[:1]:
            _check_table(table, root, tenant)


def _check_table(table: KeyStore, root: bytes, tenant: TenantNumber) -> None:
    wrapped = table.get_tenant(tenant)
    if wrapped is not None:
        unwrap(wrapping_half(root), wrapped, what=f"key of tenant {tenant}", under="root key")


@contextlib.contextmanager
def _standing_still(home: Home, unless: str | None) -> Iterator[Callable[[NodeKeys], KeyStore]]:
    """Hold the home's lock, so that no `up` reads keys that change. `unless`: the rotation that may be finished."""
    if not home.exists():
        raise NotFoundError(f"there is no network in {home.root}", hint="the first `fungistor up` makes one")
    home.check_version()
    for name in ("node.key", "root.key"):
        if name != unless and os.path.exists(os.path.join(home.keys, name + NEXT)):
            refuse_half_rotated(home)
    lock = home.lock()
    try:
        config = load_config(home)
        yield lambda keys: open_keys(home, config, keys.network_key)
    finally:
        os.close(lock)


def _rename(source: str, target: str) -> None:
    os.replace(source, target)
    sync_folder(os.path.dirname(target))
