"""node list, add, revoke: the machines that may write to the network."""

from __future__ import annotations

import argparse
import os

from fungistor.catalog.issuers import Scope
from fungistor.node import enrolment
from fungistor.node.acting import named_tenant
from fungistor.node.cli.output import Output
from fungistor.node.enrolment import NodeLine
from fungistor.node.home import Home
from fungistor.node.scope_words import parse_scopes, scope_names
from fungistor.node.wiring import open_catalog
from fungistor.objects.results import Json

_HEAD = ("ID", "NAME", "SCOPES", "TENANTS", "LEVEL", "SEEN", "STATE")
_COLUMNS = ("id", "name", "scopes", "tenants", "level", "seen:time", "state")


def list_nodes(arguments: argparse.Namespace, output: Output) -> int:
    home = Home.resolve(arguments.home)
    with open_catalog(home) as (catalog, keys, _):
        lines = enrolment.nodes(catalog, keys)
    if output.as_json:
        output.rows(lines, (), ())
        return 0
    output.rows(
        [_Shown(line) for line in lines], _HEAD, ("id", "name", "scopes", "tenants", "level", "seen:time", "state")
    )
    if not lines:
        output.note("no node is registered yet: the first `fungistor up` that has the root key registers its own")
    return 0


def add(arguments: argparse.Namespace, output: Output) -> int:
    home = Home.resolve(arguments.home)
    scopes = parse_scopes(arguments.scopes, Scope)
    with open_catalog(home) as (catalog, _, table):
        catalog.catch_up()
        tenants = [named_tenant(catalog, text).number for text in arguments.tenants.split(",")]
        line = enrolment.add_node(home, catalog, table, arguments.name, arguments.out, scopes, tenants)
    if output.as_json:
        output.json_line({**line.to_json(), "file": os.path.abspath(arguments.out)})
    else:
        output.line(f"{arguments.out} holds the keys of node {arguments.name} ({line.issuer.id.hex()})")
        output.note("move it to keys/node.key of that machine's home, and delete this copy")
    return 0


def revoke(arguments: argparse.Namespace, output: Output) -> int:
    home = Home.resolve(arguments.home)
    with open_catalog(home) as (catalog, keys, _):
        line = enrolment.revoke_node(home, catalog, keys, arguments.name)
    if output.as_json:
        output.json_line(line.to_json())
    else:
        output.line(f"node {line.issuer.name} ({line.issuer.id.hex()}) writes no more")
    return 0


class _Shown:
    """A node's line as a table shows it."""

    def __init__(self, line: NodeLine) -> None:
        self._line = line

    def to_json(self) -> Json:
        value = self._line.to_json()
        issuer = self._line.issuer
        tenants = "all" if issuer.tenants is None else ",".join(map(str, sorted(issuer.tenants)))
        state = "revoked" if issuer.revoked else "differs" if value["agrees"] is False else "ok"
        shown = f"{state}, this node" if self._line.is_this else state
        return {**value, "scopes": ",".join(scope_names(issuer.scopes)), "tenants": tenants, "state": shown}
