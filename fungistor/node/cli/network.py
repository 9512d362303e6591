"""objects, verify, status."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace

from fungistor.errors import FungiStorError
from fungistor.node.cli import cache
from fungistor.node.cli.output import Output
from fungistor.node.cli.progress import ProgressLine
from fungistor.node.cli.rights import acting_of
from fungistor.node.control import ask
from fungistor.node.home import Home
from fungistor.node.use import network_of
from fungistor.objects.results import MemberLine, StatusReport, VerifyReport

STATUS_ASK_S = 5.0


def objects(arguments: argparse.Namespace, output: Output) -> int:
    with network_of(Home.resolve(arguments.home), acting_of(arguments)) as network:
        output.rows(
            network.objects(),
            ("CID", "SIZE", "STORED", "SURVIVES", "PUBLISHED", "PRIVATE", "NAME"),
            ("cid", "size:size", "stored:size", "survives:right", "published:time", "private", "name"),
        )
    return 0


def verify(arguments: argparse.Namespace, output: Output) -> int:
    code = 0
    acting = acting_of(arguments)
    with (
        network_of(Home.resolve(arguments.home), acting) as network,
        ProgressLine(output.err, enabled=not output.as_json) as progress,
    ):
        every = not acting.is_restricted
        for report in network.verify(arguments.cid, progress, every=every):
            code = max(code, report.exit_code)  # 3, unreadable now, outweighs 1
            if output.as_json:
                output.json_line(report.to_json())
            else:
                output.line(_verify_words(report))
                for member, wrong in sorted((report.by_member or {}).items()):
                    output.line(f"  {member}: {wrong}")
    return code


def _verify_words(report: VerifyReport) -> str:
    if report.good == report.shards:
        return f"{report.cid}  all {report.shards} shards good"
    words = f"{report.cid}  {report.good} of {report.shards} shards good, {report.missing} missing, "
    return f"{words}{report.corrupt} corrupt; {'readable' if report.readable else 'cannot be read now'}"


def status(arguments: argparse.Namespace, output: Output) -> int:
    home = Home.resolve(arguments.home)
    with network_of(home) as network:
        report = _with_processes(network.status(), home)
    kept = cache.told(home)
    if output.as_json:
        output.json_line({**report.to_json(), "cache": kept})
        return 0
    columns = ("id", "state", "address", "zone", "reason")
    output.rows(report.members, ("MEMBER", "STATE", "ADDRESS", "ZONE", "REASON"), columns)
    up = sum(member.state in ("up", "slow") for member in report.members)
    output.line("")
    output.fields(
        {**report.to_json(), "cache": kept["bytes"], "up": f"{up} of {len(report.members)}"},
        (
            ("members up", "up"),
            ("objects", "objects"),
            ("at risk", "at_risk"),
            ("unreadable", "unreadable"),
            ("owed shards", "owed_shards"),
            ("revision", "revision"),
            ("cache", "cache:size"),
        ),
    )
    if report.stopped is not None:
        output.line(f"the catalog stands still: {report.stopped}; update fungistor here, what is published reads on")
    if report.differing:
        output.line(f"the catalog of these nodes is not as this one's: {', '.join(report.differing)}")
    if not report.sync:
        output.line("nothing waits for the disk (--no-sync): what a power cut takes is gone")
    return 0


def _with_processes(report: StatusReport, home: Home) -> StatusReport:
    """Add what only `up` knows: that a member is paused or stopped by hand, or wiped. Without it the probes stand."""
    try:
        lines = ask(home, {"op": "members"}, STATUS_ASK_S)["members"]
    except FungiStorError:
        return report
    known: dict[str, Mapping[str, object]] = {}
    if isinstance(lines, list):
        known = {str(line["id"]): line for line in lines}
    return replace(report, members=tuple(_merge(member, known.get(member.id)) for member in report.members))


def _merge(member: MemberLine, line: Mapping[str, object] | None) -> MemberLine:
    if line is None or line["state"] == "up":
        return member
    return replace(member, state="paused" if line["state"] == "paused" else "down", reason=str(line["reason"]))
