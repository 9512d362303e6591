"""car export, car import."""

from __future__ import annotations

import argparse
import sys

from fungistor.node.cli.output import Output, safe, seconds_text, size_text
from fungistor.node.cli.progress import ProgressLine
from fungistor.node.cli.rights import acting_of
from fungistor.node.home import Home
from fungistor.node.use import network_of
from fungistor.objects.results import CarRoot

STDOUT = "-"


def export(arguments: argparse.Namespace, output: Output) -> int:
    """Write a CAR; where that goes to stdout, `--json` changes only how an error is told."""
    to_stdout = arguments.output == STDOUT
    stream = (output.out.buffer if hasattr(output.out, "buffer") else sys.stdout.buffer) if to_stdout else None
    with network_of(Home.resolve(arguments.home), acting_of(arguments)) as network:
        with ProgressLine(output.err, enabled=not output.as_json) as progress:
            result = network.car_export(arguments.cid_path, arguments.output, arguments.force, progress, stream)
        if output.as_json and not to_stdout:
            output.json_line(result.to_json())
        elif not output.as_json:
            words = f"{result.blocks} blocks, {size_text(result.bytes)} in {seconds_text(result.seconds)}"
            output.note(f"{'' if to_stdout else result.out + ': '}{words}")
    return 0


def load(arguments: argparse.Namespace, output: Output) -> int:
    """Import CAR files."""
    said = False
    with (
        network_of(Home.resolve(arguments.home), acting_of(arguments)) as network,
        ProgressLine(output.err, enabled=not output.as_json) as progress,
    ):
        for root in network.car_import(arguments.files, arguments.partial, progress, private=arguments.private):
            if root.left_out and not said:
                which = "1 block is" if root.left_out == 1 else f"{root.left_out} blocks are"
                output.note(f"{which} left out: no root leads there")
                said = True
            if output.as_json:
                output.json_line(root.to_json())
            else:
                output.line(root.cid)
                output.note(_import_words(root))
    return 0


def _import_words(root: CarRoot) -> str:
    words = [f"{safe(root.name) or root.cid}: {root.blocks} blocks, {size_text(root.bytes)}"]
    if root.missing:
        words.append(f"{root.missing} blocks are missing")
    words.append(f"{size_text(root.stored)} on members, {size_text(root.new)} of it new")
    words.append(f"survives {root.survives} further losses")
    if root.owed:
        words.append(f"{root.owed} shards still owed")
    return f"{'; '.join(words)}; {seconds_text(root.seconds)}"
