"""pool list, add, drain, label, remove: who holds shards. And repair, which moves them there."""

from __future__ import annotations

import argparse
from typing import cast

from fungistor.node.cli.output import Output, safe, table_lines
from fungistor.node.cli.progress import ProgressLine
from fungistor.node.control import ask
from fungistor.node.home import Home
from fungistor.node.use import network_of
from fungistor.objects.results import Json, RepairReport

COLUMNS = ("id", "number", "state", "weight", "share", "capacity", "zone", "address")


def members(arguments: argparse.Namespace, output: Output) -> int:
    """Print a line a member: how much of the shards it takes, and whether it may still hold some."""
    with network_of(Home.resolve(arguments.home)) as network:
        lines = network.pool_lines()
    if output.as_json:
        for line in lines:
            output.json_line(line)
        return 0
    rows = [[safe("-" if line[key] is None else _cell(key, line[key])) for key in COLUMNS] for line in lines]
    for text in table_lines([key.upper() for key in COLUMNS], rows, [key in ("share", "weight") for key in COLUMNS]):
        output.line(text)
    return 0


def _cell(key: str, value: object) -> str:
    return f"{100 * cast('float', value):.2f} %" if key == "share" else str(value)


def change(arguments: argparse.Namespace, output: Output) -> int:
    """Ask the running `up` for it, and say what it comes to."""
    request: Json = {"op": "pool", "verb": arguments.verb, "dry_run": arguments.dry_run}
    for key in ("count", "ids", "lost", "zone", "weight", "capacity"):
        if getattr(arguments, key, None) is not None:
            request[key] = getattr(arguments, key)
    plan = ask(Home.resolve(arguments.home), request)
    if output.as_json:
        output.json_line(plan | {"dry_run": arguments.dry_run})
        return 0
    share, moved = cast("float", plan["moved_share"]), cast("int", plan["moved_bytes"])
    output.line(f"{'would be' if arguments.dry_run else 'is now'} layout {plan['layout']}: {plan['members']} members")
    for what in ("added", "removed"):
        if names := cast("list[str]", plan[what]):
            output.line(f"  {what}: {', '.join(map(safe, names))}")
    output.line(f"  {100 * share:.2f} % of all shards move: {moved / (1 << 20):,.1f} MiB of what is stored now")
    if share and not arguments.dry_run:
        output.note("`fungistor repair` moves them; until then they are read where they are")
    return 0


def repair(arguments: argparse.Namespace, output: Output) -> int:
    """Move what has to move, rebuild what is missing, and say what is left."""
    rate = None if arguments.rate is None else arguments.rate * 1e6
    with (
        network_of(Home.resolve(arguments.home)) as network,
        ProgressLine(output.err, enabled=not output.as_json) as progress,
    ):
        from fungistor.node.repairs import Repairs  # after the checks: an error should not wait for its imports
        from fungistor.repair.mover import Look

        report = Repairs(network.parts).repair(
            bytes_a_second=rate,
            look=Look.THERE if arguments.quick else Look.WHOLE,
            grace_s=arguments.grace,
            progress=progress,
        )
    if output.as_json:
        output.json_line(report.to_json())
    else:
        for text in _words(report):
            output.line(text)
    return report.exit_code


def _words(report: RepairReport) -> list[str]:
    moved = f"{report.copied} shards moved, {report.rebuilt} rebuilt, {report.moved_bytes / (1 << 20):,.1f} MiB"
    lines = [f"{report.objects} objects: {moved} in {report.seconds:.1f} s"]
    if report.damaged:
        lines.append(f"{report.damaged} damaged shards were found")
    if report.waiting:
        lines.append(f"{report.waiting} shards wait for {', '.join(map(safe, report.waiting_for))}")
    if report.unreadable:
        lines.append(f"{report.unreadable} objects have stripes that cannot be read now")
    if report.retired_layouts:
        lines.append(f"{report.retired_layouts} older layouts are retired: drained members can be removed")
    if report.cleared_layouts:
        lines.append(f"old copies are deleted: {report.freed / (1 << 20):,.1f} MiB back on members")
    if report.pending:
        lines.append(f"old copies are left on {', '.join(map(safe, report.pending))}: a repair when they are back")
    if report.stuck:
        lines.append(f"these cannot give space back: {', '.join(map(safe, report.stuck))}")
    if report.clear_in:
        lines.append(f"old copies stay for readers for {report.clear_in} s more; `up` deletes them then")
    if report.left:
        lines.append(f"older layouts stay: {report.left}")
    return lines
