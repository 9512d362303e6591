"""policy add, list, show, remove: the rules by which objects can be stored."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from fungistor.node.cli.output import Output, safe
from fungistor.node.home import Home
from fungistor.node.policies import Policies
from fungistor.node.policy_words import policy_of_words
from fungistor.node.wiring import open_catalog

HEAD = ("NAME", "CODE", "SURVIVES", "REGIONS", "MEMBERS", "OBJECTS", "STORED")


def make(arguments: argparse.Namespace, output: Output) -> int:
    """Add a policy; there being this very one already is no failure."""
    policy = policy_of_words(
        arguments.name, arguments.k, arguments.m, arguments.min_shard, arguments.survive, arguments.region
    )
    with open_catalog(Home.resolve(arguments.home)) as (catalog, _, _):
        policies = Policies(catalog)
        is_new = policies.add(policy, dry_run=arguments.dry_run)
        line = None if arguments.dry_run and is_new else policies.line(policy.name).to_json()
    if output.as_json:
        output.json_line({**(line or {"name": policy.name}), "added": is_new and not arguments.dry_run})
    elif not is_new:
        output.line(f"policy {policy.name} is there already")
    elif arguments.dry_run:
        output.line(f"the members can meet policy {policy.name}; nothing was changed")
    else:
        output.line(f"policy {policy.name}: `fungistor publish --policy {policy.name}` goes by it")
    return 0


def listed(arguments: argparse.Namespace, output: Output) -> int:
    with open_catalog(Home.resolve(arguments.home)) as (catalog, _, _):
        lines = [line.to_json() for line in Policies(catalog).lines()]
    if output.as_json:
        for line in lines:
            output.json_line(line)
        return 0
    output.rows(
        [_Shown(line) for line in lines], HEAD,
        ("name", "code", "survives", "regions", "members:right", "objects:right", "stored:size"),
    )  # fmt: skip
    return 0


def show(arguments: argparse.Namespace, output: Output) -> int:
    with open_catalog(Home.resolve(arguments.home)) as (catalog, _, _):
        line = Policies(catalog).line(arguments.name).to_json()
    columns = ("code", "min_shard:size", "survives", "regions", "members", "objects", "stored:size")
    shown = line if output.as_json else _Shown(line).to_json()
    output.fields(shown, (("name", "name"), *((column.split(":")[0].replace("_", " "), column) for column in columns)))
    return 0


def remove(arguments: argparse.Namespace, output: Output) -> int:
    with open_catalog(Home.resolve(arguments.home)) as (catalog, _, _):
        Policies(catalog).remove(arguments.name)
    if output.as_json:
        output.json_line({"name": arguments.name, "removed": True})
    else:
        output.line(f"policy {safe(arguments.name)} is gone")
    return 0


class _Shown:
    """A policy as a row for people."""

    def __init__(self, line: Mapping[str, object]) -> None:
        self._line = line

    def to_json(self) -> dict[str, object]:
        line = self._line
        survives = f"{line['m']} members"
        if line["zones"]:
            survives += f", or {line['zones']} of its {line['zone_level']}s"
        regions = line["regions"]
        assert isinstance(regions, list)
        return {
            **line,
            "code": f"{line['k']}+{line['m']}",
            "survives": survives,
            "regions": ", ".join(regions) or "anywhere",
        }
