"""tenant add, list, show, quota, rename, hold, remove, revoke-links."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

from fungistor.catalog.catalog import Catalog
from fungistor.errors import InvalidError
from fungistor.ids import OWN_TENANT
from fungistor.keys.ring import NodeKeys
from fungistor.node.acting import named_tenant
from fungistor.node.cli.output import Output, size_text
from fungistor.node.cli.rights import acting_of
from fungistor.node.config import load_config
from fungistor.node.home import Home
from fungistor.node.tenancy import Tenancy, TenantLine
from fungistor.node.use import network_of
from fungistor.node.wiring import open_catalog

_HEAD = ("TENANT", "NUMBER", "BYTES", "OF", "OBJECTS", "OF", "TOKENS")
_COLUMNS = (
    "tenant",
    "number:right",
    "bytes:size",
    "bytes_max:size",
    "objects:right",
    "objects_max:right",
    "tokens:right",
)


@contextlib.contextmanager
def tenancy_of(arguments: argparse.Namespace, *, writes: bool = False) -> Iterator[tuple[Tenancy, Catalog, NodeKeys]]:
    """Open a home's catalog for what is asked of tenants; for what `writes`, with the members that keep copies."""
    home = Home.resolve(arguments.home)
    if writes and home.exists() and (home.is_running() or load_config(home).pool is not None):
        with network_of(home) as network:
            parts = network.parts
            yield Tenancy(home, parts.catalog, parts.keys, parts.key_table, os.environ), parts.catalog, parts.keys
        return
    with open_catalog(home) as (catalog, keys, table):
        catalog.catch_up()
        yield Tenancy(home, catalog, keys, table, os.environ), catalog, keys


def add(arguments: argparse.Namespace, output: Output) -> int:
    with tenancy_of(arguments, writes=True) as (tenancy, _, _):
        line = tenancy.add(arguments.name, arguments.bytes, arguments.objects)
    return _say(line, output, f"tenant {line.tenant.name} has number {line.tenant.number}, and a key of its own")


def listed(arguments: argparse.Namespace, output: Output) -> int:
    with tenancy_of(arguments) as (tenancy, _, _):
        output.rows(tenancy.lines(), _HEAD, _COLUMNS)
    return 0


def show(arguments: argparse.Namespace, output: Output) -> int:
    acting = acting_of(argparse.Namespace(tenant=arguments.name, handler=arguments.handler))
    with tenancy_of(arguments) as (tenancy, catalog, keys):
        number = (
            acting.tenant(catalog, keys)
            if acting.token
            else named_tenant(catalog, acting.named or str(OWN_TENANT)).number
        )
        line = tenancy.line(number)
    output.fields(
        line.to_json(),
        (
            ("tenant", "tenant"),
            ("number", "number"),
            ("bytes", "bytes:size"),
            ("of", "bytes_max:size"),
            ("objects", "objects"),
            ("of", "objects_max"),
            ("stored", "stored:size"),
            ("tokens", "tokens"),
            ("key held", "held"),
        ),
    )
    return 0


def quota(arguments: argparse.Namespace, output: Output) -> int:
    if arguments.bytes is None and arguments.objects is None:
        raise InvalidError("no quota is said", hint="--bytes SIZE, --objects N, or `none` for one of them")
    with tenancy_of(arguments, writes=True) as (tenancy, catalog, _):
        line = tenancy.change(
            named_tenant(catalog, arguments.name).number,
            lambda tenant: replace(
                tenant,
                bytes_max=tenant.bytes_max if arguments.bytes is None else _bound(arguments.bytes),
                objects_max=tenant.objects_max if arguments.objects is None else _bound(arguments.objects),
            ),
        )
    tenant, usage = line.tenant, line.usage
    words = [
        f"{size_text(usage.bytes)} of {'any' if tenant.bytes_max is None else size_text(tenant.bytes_max)}",
        f"{usage.objects} of {'any' if tenant.objects_max is None else tenant.objects_max} objects",
    ]
    return _say(line, output, f"tenant {tenant.name}: {', '.join(words)}")


def rename(arguments: argparse.Namespace, output: Output) -> int:
    with tenancy_of(arguments, writes=True) as (tenancy, catalog, _):
        number = named_tenant(catalog, arguments.name).number
        line = tenancy.change(number, lambda tenant: replace(tenant, name=arguments.new))
    return _say(line, output, f"tenant {line.tenant.number} is {line.tenant.name} from now on")


def hold(arguments: argparse.Namespace, output: Output) -> int:
    with tenancy_of(arguments) as (tenancy, catalog, _):
        line = tenancy.hold(named_tenant(catalog, arguments.name).number)
    return _say(line, output, f"this home holds the key of tenant {line.tenant.name}")


def remove(arguments: argparse.Namespace, output: Output) -> int:
    with tenancy_of(arguments, writes=True) as (tenancy, catalog, _):
        line = tenancy.remove(named_tenant(catalog, arguments.name).number, dry_run=arguments.dry_run)
    would = "would be " if arguments.dry_run else "is "
    if output.as_json:
        output.json_line({**line.to_json(), "removed": not arguments.dry_run, "dry_run": arguments.dry_run})
    else:
        output.line(f"tenant {line.tenant.name} {would}removed, with {line.tokens} tokens")
    return 0


def revoke_links(arguments: argparse.Namespace, output: Output) -> int:
    acting = acting_of(argparse.Namespace(tenant=arguments.name, handler=arguments.handler))
    with tenancy_of(arguments, writes=True) as (tenancy, catalog, keys):
        number = acting.tenant(catalog, keys)
        line = tenancy.line(number) if arguments.dry_run else tenancy.revoke_links(number)
    would = "would end" if arguments.dry_run else "have ended"
    return _say(line, output, f"all links that were signed for tenant {line.tenant.name} {would}")


def _bound(said: int) -> int | None:
    return None if said < 0 else said


def _say(line: TenantLine, output: Output, words: str) -> int:
    if output.as_json:
        output.json_line(line.to_json())
    else:
        output.line(words)
    return 0
