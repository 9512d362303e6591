"""log: who did what, when, in the catalog's one order."""

from __future__ import annotations

import argparse
import functools

from fungistor.ids import TenantNumber
from fungistor.node.audit import Audit, LogLine
from fungistor.node.cli.output import Output, safe
from fungistor.node.cli.rights import acting_of
from fungistor.node.home import Home
from fungistor.node.wiring import open_catalog

FOLLOW_S = 1.0
_HEAD = ("ENTRY", "WHEN", "WHO", "WHAT", "ENDED", "REVISION", "CID", "NAME")
_COLUMNS = ("number:right", "when:time", "who", "kind", "verdict", "revision:right", "cid", "name")


def log(arguments: argparse.Namespace, output: Output) -> int:
    home = Home.resolve(arguments.home)
    acting = acting_of(arguments)
    with open_catalog(home) as (catalog, keys, table):
        catalog.catch_up()
        tenant = acting.tenant(catalog, keys) if acting.is_restricted else None
        first = catalog.first_entry()
        if first > arguments.after + 1 and not output.as_json:
            output.note(f"entries before {first} are in a snapshot and no longer in the log")
        audit = Audit(catalog, keys, table)
        show = functools.partial(_show, audit, tenant, output=output)
        last = show(arguments.after, with_head=True)
        while arguments.follow:
            catalog.wait(FOLLOW_S)
            last = show(last, with_head=False)
    return 0


def _show(audit: Audit, tenant: TenantNumber | None, after: int, *, output: Output, with_head: bool) -> int:
    last = after

    def noted() -> list[LogLine]:
        nonlocal last
        lines: list[LogLine] = []
        for line in audit.lines(after, tenant):
            last = line.number
            if output.as_json:
                output.json_line(line.to_json())
            else:
                lines.append(line)
        return lines

    lines = noted()
    if with_head:
        output.rows(lines, _HEAD, _COLUMNS)
    for line in lines:
        if not with_head:
            output.line(
                f"{line.number}  {line.who}  {line.kind}  {line.verdict}  {line.cid or '-'}  {safe(line.name or '-')}"
            )
        if line.reason:
            output.line(f"  {line.number}: {line.reason}")
    return last
