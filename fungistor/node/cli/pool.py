"""pool export: what another machine needs to know of the members."""

from __future__ import annotations

import argparse
import os

from fungistor.errors import ConflictError, NotFoundError
from fungistor.node.cli.output import Output
from fungistor.node.config import load_config
from fungistor.node.home import Home
from fungistor.node.pool_file import load_pool, pool_text, save_pool


def export(arguments: argparse.Namespace, output: Output) -> int:
    home = Home.resolve(arguments.home)
    source = load_config(home).pool or home.pool_file
    if not os.path.exists(source):
        raise NotFoundError(f"there are no members in {home.root} yet", hint="start it with `fungistor up`")
    members = load_pool(source)
    if arguments.output == "-":
        output.out.write(pool_text(members))
        return 0
    if os.path.exists(arguments.output) and not arguments.force:
        raise ConflictError(f"{arguments.output} exists", hint="--force replaces it")
    save_pool(arguments.output, members)
    output.note(f"{arguments.output}: {len(members)} members, with their passwords; keep it to yourself")
    if output.as_json:
        output.json_line({"file": os.path.abspath(arguments.output), "members": len(members)})
    return 0
