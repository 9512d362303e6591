"""catalog migrate: move the log to where a fleet can share it."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from fungistor.node.catalog_move import migrate as move
from fungistor.node.catalog_place import CatalogOptions
from fungistor.node.cli.output import Output, size_text
from fungistor.node.cli.progress import ProgressLine
from fungistor.node.home import Home
from fungistor.node.use import network_of


def asked(arguments: argparse.Namespace, url: str | None) -> CatalogOptions:
    """What the options say of the catalog."""
    return CatalogOptions(url, arguments.catalog_user, arguments.catalog_password_file, arguments.catalog_ca)


def migrate(arguments: argparse.Namespace, output: Output) -> int:
    with ProgressLine(output.err, enabled=not output.as_json) as progress:
        moved = move(Home.resolve(arguments.home), asked(arguments, arguments.url), progress)
    if output.as_json:
        output.json_line(asdict(moved))
    else:
        output.line(f"{moved.entries} entries moved to {moved.target}; the file is kept as {moved.aside}")
    return 0


def snapshot(arguments: argparse.Namespace, output: Output) -> int:
    with network_of(Home.resolve(arguments.home)) as network:
        taken = network.snapshot()
    if taken is None:
        output.note("nothing was committed since the last snapshot")
        return 0
    if output.as_json:
        output.json_line(taken.to_json())
        return 0
    output.line(
        f"{size_text(taken.size)} in {taken.chunks} pieces on {taken.members} members, any {taken.k} of {taken.shards} "
        f"bring it back; {taken.trimmed} entries left the log"
    )
    return 0
