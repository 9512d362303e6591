"""Keys: there, closed to others, of one network, and one for everything that is published."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from fungistor.catalog.state import State
from fungistor.errors import FungiStorError, NotFoundError
from fungistor.ids import ObjectId, Revision
from fungistor.keys.files import ROOT_KEY_VARIABLE, load_node_keys, load_root_key, root_key_facts
from fungistor.keys.ring import NodeKeys, fingerprint, unwrap, wrapping_half
from fungistor.keys.table import KeyTable
from fungistor.node.doctor.finding import Finding, bad, good, of_error, unknown
from fungistor.node.home import Home
from fungistor.node.new_keys import refuse_half_rotated

AREA = "keys"
ROWS_AT_ONCE = 1000


def look_at_keys(home: Home, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Files, fingerprints and the key table."""
    node_file, root_file = os.path.join(home.keys, "node.key"), os.path.join(home.keys, "root.key")
    try:
        refuse_half_rotated(home)
        node = load_node_keys(node_file)
    except FungiStorError as error:
        yield of_error(AREA, error)
        return
    yield good(AREA, f"node.key is closed to others, of root key {node.root_fingerprint}")
    root = None
    try:
        mark, root = _root(root_file, environ)
    except NotFoundError:
        yield unknown(
            AREA,
            "the root key is not on this machine",
            "as it should be, if its backup is safe: `keys import` brings it",
        )
    except FungiStorError as error:
        yield of_error(AREA, error)
    else:
        yield _same_network(mark, node)
    yield from _look_at_table(home, node, root)


def _root(path: str, environ: Mapping[str, str]) -> tuple[str, bytes | None]:
    """A root key's fingerprint, and the key itself where it takes no passphrase."""
    if environ.get(ROOT_KEY_VARIABLE):
        key = load_root_key(path, environ)
        return fingerprint(key), key
    mark, is_sealed = root_key_facts(path)
    return mark, None if is_sealed else load_root_key(path, environ)


def _same_network(mark: str, node: NodeKeys) -> Finding:
    if mark != node.root_fingerprint:
        return bad(
            AREA,
            f"the root key (fingerprint {mark}) is not the one of node.key ({node.root_fingerprint})",
            "put this network's own root key there; after a rotation on another machine `fungistor keys renew`",
        )
    return good(AREA, f"the root key is here, fingerprint {mark}: is its backup away from here?")


def _look_at_table(home: Home, node: NodeKeys, root: bytes | None) -> Iterator[Finding]:
    if not os.path.exists(home.key_table):
        yield bad(AREA, "the key table is gone: nothing that was published can be read", "restore catalog/keys.sqlite")
        return
    with contextlib.closing(KeyTable(home.key_table)) as table:
        for tenant in table.tenants():
            wrapped = table.get_tenant(tenant)
            if root is not None and wrapped is not None:
                try:
                    unwrap(wrapping_half(root), wrapped, what=f"key of tenant {tenant}", under="root key")
                except FungiStorError as error:
                    yield of_error(AREA, error)
        known: set[bytes] = set()
        closed = 0
        after = ObjectId(b"")
        while rows := table.rows(after, ROWS_AT_ONCE):
            after = rows[-1][0]
            known.update(row[0] for row in rows)
            closed += sum(
                not _opens(node.tenant_keys[tenant], wrapped)
                for _, tenant, wrapped in rows
                if tenant in node.tenant_keys
            )
    if closed:
        yield bad(
            AREA,
            f"{closed} keys of {len(known)} do not open by this node's tenant keys",
            "they were rotated on another machine: `fungistor keys renew`; or the key table is another network's",
        )
    yield _all_have_keys(home, known)


def _all_have_keys(home: Home, known: set[bytes]) -> Finding:
    if not os.path.exists(home.catalog_state):
        return unknown(AREA, f"{len(known)} keys, and no catalog state to compare them with")
    with contextlib.closing(State(home.catalog_state)) as state:
        objects = [record.key_id for record in state.records()]
        names = [row.key_ref for row in state.names_after(Revision(0)) if row.stands]
    missing = sum(key not in known for key in (*objects, *names))
    if missing:
        return bad(
            AREA,
            f"{missing} of {len(objects)} objects and {len(names)} names have no key, so they cannot be read",
            "restore keys.sqlite of the same moment as the catalog; or start `up`, which follows a shared table",
        )
    return good(AREA, f"all {len(objects)} objects and {len(names)} names have their key")


def _opens(key: bytes, wrapped: bytes) -> bool:
    try:
        unwrap(key, wrapped)
    except FungiStorError:
        return False
    return True
