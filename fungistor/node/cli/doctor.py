"""doctor."""

from __future__ import annotations

import argparse
import os

from fungistor.node.cli.output import Output, safe
from fungistor.node.home import Home

_MARKS = {True: "ok", False: "WRONG", None: "?"}


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Say what is wrong and what to do; exit 1 where something is."""
    from fungistor.node.doctor import examine

    wrong = 0
    for finding in examine(Home.resolve(arguments.home), os.environ):
        wrong += finding.is_good is False
        if output.as_json:
            output.json_line(finding.to_json())
            continue
        output.line(f"{_MARKS[finding.is_good]:<5}  {finding.area:<8} {safe(finding.seen)}")
        if finding.next_step:
            output.line(f"{'':<16}{safe(finding.next_step)}")
    if not output.as_json:
        output.line(f"\n{wrong} finding{'' if wrong == 1 else 's'}" if wrong else "\nnothing is wrong")
    return 1 if wrong else 0
