"""Nodes that may write to a network: the first registers itself, the others are let in by whoever has the root key."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fungistor.catalog.authority import Issuer
from fungistor.catalog.catalog import Catalog, sign
from fungistor.catalog.commands import SESSION_BYTES, Body, Command
from fungistor.catalog.issuers import ALL_SCOPES, NODE_NAME_BYTES_MAX, RegisterIssuer, RevokeIssuer, Scope, issuer_id
from fungistor.catalog.state import NodeReport
from fungistor.errors import ConflictError, DeniedError, InvalidError, NotFoundError, UnavailableError
from fungistor.ids import SessionId, TenantNumber
from fungistor.keys.files import load_root_key, save_new_node_keys
from fungistor.keys.issue import issue
from fungistor.keys.ring import NodeKeys, SigningKey, authority_of
from fungistor.keys.store import KeyStore
from fungistor.node.home import Home
from fungistor.node.scope_words import scope_names
from fungistor.objects.results import Json

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node as `node list` tells of it. `agrees` False: its catalog state is not the one of this node."""

    issuer: Issuer
    report: NodeReport | None
    is_this: bool

    def to_json(self) -> Json:
        """The keys of `--json`."""
        issuer, report = self.issuer, self.report
        return {
            "id": issuer.id.hex(),
            "name": issuer.name,
            "scopes": scope_names(issuer.scopes),
            "tenants": None if issuer.tenants is None else sorted(issuer.tenants),
            "revoked": issuer.revoked,
            "this": self.is_this,
            "level": None if report is None else report.level,
            "seen": None if report is None else report.told,
            "agrees": None if report is None else report.agrees,
        }


def enrol(home: Home, keys: NodeKeys, catalog: Catalog, environ: Mapping[str, str] | None = None) -> bool:
    """Register this home's node where it is not, by the root key if that is here; True if it may write.

    Raises: DeniedError where the catalog belongs to another root key.
    """
    mine = issuer_id(keys.issuer)
    known = catalog.issuers()
    found = next((issuer for issuer in known if issuer.id == mine), None)
    if found is not None:
        return not found.revoked
    try:
        authority = _authority(home, environ)
    except NotFoundError:
        # Until somebody is registered, as in networks from before commands were signed, everybody may write.
        return catalog.authority() is None
    name = _free_name(socket.gethostname() or "node", known)
    commit_as(catalog, authority, RegisterIssuer(authority.issuer, keys.issuer, name, ALL_SCOPES))
    return True


def nodes(catalog: Catalog, keys: NodeKeys) -> list[NodeLine]:
    """Every node that was let in."""
    catalog.catch_up()
    reports = {report.issuer: report for report in catalog.reports()}
    mine = issuer_id(keys.issuer)
    return [NodeLine(issuer, reports.get(issuer.id), issuer.id == mine) for issuer in catalog.issuers()]


def add_node(
    home: Home,
    catalog: Catalog,
    table: KeyStore,
    name: str,
    path: str,
    scopes: Scope,
    tenants: Sequence[TenantNumber],
) -> NodeLine:
    """Make the key file of another machine and let its node in.

    Raises: NotFoundError without the root key; ConflictError where the name or the file is taken.
    """
    if not name or len(name.encode()) > NODE_NAME_BYTES_MAX or not name.isprintable():
        raise InvalidError(f"a node's name has 1 to {NODE_NAME_BYTES_MAX} printable bytes")
    catalog.catch_up()
    if any(issuer.name == name and not issuer.revoked for issuer in catalog.issuers()):
        raise ConflictError(f"there is a node {name} already", hint="give another name, or revoke that one first")
    root_file = os.path.join(home.keys, "root.key")
    root = load_root_key(root_file, os.environ)
    keys = issue(root, table, tenants)
    save_new_node_keys(path, keys)
    authority = authority_of(root)
    try:
        commit_as(
            catalog, authority, RegisterIssuer(authority.issuer, keys.issuer, name, scopes, tuple(sorted(set(tenants))))
        )
    except BaseException:
        # Of no use to anybody; where the command was committed all the same, the key is lost and does no harm.
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    return next(line for line in nodes(catalog, keys) if line.is_this)


def revoke_node(home: Home, catalog: Catalog, keys: NodeKeys, named: str) -> NodeLine:
    """Shut a node out, by its name or id. Raises: NotFoundError, or as `add_node`."""
    catalog.catch_up()
    known = catalog.issuers()
    found = [issuer for issuer in known if named == issuer.id.hex()]
    found = found or [issuer for issuer in known if issuer.name == named and not issuer.revoked]
    found = found or [issuer for issuer in known if issuer.name == named]
    if not found:
        raise NotFoundError(f"there is no node {named}", hint="`fungistor node list` tells names and ids")
    authority = _authority(home, None)
    commit_as(catalog, authority, RevokeIssuer(authority.issuer, found[0].id))
    return next(line for line in nodes(catalog, keys) if line.issuer.id == found[0].id)


class Standing:
    """This node's place among the others, kept in the background: registered, and telling what it can and has."""

    def __init__(self, home: Home, keys: NodeKeys, catalog: Catalog) -> None:
        self._home = home
        self._keys = keys
        self._catalog = catalog
        self._has_warned = False

    def step(self) -> bool:
        """Register if that is still to be done, and report; False: no more to do now."""
        self._catalog.catch_up()
        if not enrol(self._home, self._keys, self._catalog):
            if not self._has_warned:
                log.warning("this node may not write to its network: have it let in with `fungistor node add`")
            self._has_warned = True
            return False
        self._catalog.report()
        return False

    def begin(self) -> None:
        """The first step of a start. A log elsewhere that cannot be had now is asked again later."""
        with contextlib.suppress(UnavailableError):
            enrol(self._home, self._keys, self._catalog)


def _authority(home: Home, environ: Mapping[str, str] | None) -> SigningKey:
    environment = os.environ if environ is None else environ
    return authority_of(load_root_key(os.path.join(home.keys, "root.key"), environment))


def commit_as(catalog: Catalog, authority: SigningKey, body: Body) -> None:
    """Commit a command of the authority's. Raises: DeniedError where it is not this network's."""
    standing = catalog.authority()
    if standing is not None and standing != authority.issuer:
        raise DeniedError(
            "the root key is not the one that this network's catalog was begun with",
            hint="give this network's own root key, or check which catalog this home follows",
        )
    command = Command(SessionId(os.urandom(SESSION_BYTES)), 0, body)
    catalog.commit(sign(command, authority, int(time.time())))


def _free_name(name: str, known: Sequence[Issuer]) -> str:
    taken = {issuer.name for issuer in known}
    short = name.encode()[: NODE_NAME_BYTES_MAX - 6].decode(errors="ignore")
    return next(
        text for text in (short, *(f"{short}-{number}" for number in range(2, len(taken) + 3))) if text not in taken
    )
