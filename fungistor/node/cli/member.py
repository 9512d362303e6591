"""member list, stop, start, pause, resume: asked of the `up` that runs the members."""

from __future__ import annotations

import argparse
from typing import cast

from fungistor.node.cli.output import Output, safe, table_lines
from fungistor.node.control import ask
from fungistor.node.home import Home
from fungistor.objects.results import Json


def run(arguments: argparse.Namespace, output: Output) -> int:
    home = Home.resolve(arguments.home)
    if arguments.verb == "list":
        request: Json = {"op": "members"}
    else:
        request = {
            "op": "member",
            "verb": arguments.verb,
            "ids": arguments.ids,
            "reset": getattr(arguments, "reset", False),
        }
    lines = cast("list[Json]", ask(home, request)["members"])
    if output.as_json:
        for line in lines:
            output.json_line(line)
        return 0
    columns = ("id", "state", "address", "pid", "reason")
    rows = [[safe("-" if line[key] is None else str(line[key])) for key in columns] for line in lines]
    for text in table_lines(("MEMBER", "STATE", "ADDRESS", "PROCESS", "REASON"), rows, [False] * len(columns)):
        output.line(text)
    return 0
