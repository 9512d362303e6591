"""catalog rebuild: a network's catalog back from its members, and what to say of it."""

from __future__ import annotations

import argparse
import os

from fungistor.errors import NotFoundError
from fungistor.keys.files import ROOT_KEY_VARIABLE, load_root_key
from fungistor.node.cli.catalog import asked
from fungistor.node.cli.grammar import UsageError
from fungistor.node.cli.keys import ask
from fungistor.node.cli.output import Output
from fungistor.node.cli.progress import ProgressLine
from fungistor.node.copies.findings import Asked, moment, named
from fungistor.node.copies.rebuild import rebuild
from fungistor.node.home import Home


def run(arguments: argparse.Namespace, output: Output) -> int:
    if arguments.pool is None:
        raise UsageError(
            "the members are not known",
            hint="--pool FILE, as `fungistor pool export` wrote it, or a home's pool.toml",
        )
    home = Home.resolve(arguments.home)
    path = os.path.join(home.keys, "root.key")
    try:
        root = load_root_key(path, os.environ, ask)
    except NotFoundError:
        raise NotFoundError(
            f"there is no root key {path}",
            hint=f"`fungistor keys import` brings its backup, words or shares here; or set {ROOT_KEY_VARIABLE}",
        ) from None
    told = Asked(
        arguments.pool, root, asked(arguments, arguments.catalog), arguments.incomplete, dry_run=arguments.dry_run
    )
    with ProgressLine(output.err, enabled=not output.as_json) as progress:
        found = rebuild(home, told, progress, output.note)
    if output.as_json:
        output.json_line(found.to_json())
        return 0
    verb = "would come" if found.dry_run else "came"
    when = "" if found.last_commit is None else f"; the last commit is of {moment(found.last_commit)}"
    output.line(
        f"{found.objects} objects, {found.names} names, {found.members} members and {found.nodes} nodes {verb} back "
        f"in {found.seconds:.1f} s, revision {found.revision}{when}"
    )
    if found.missing:
        output.note(f"missing were {named(found.missing)}")
    if not found.is_proven:
        output.note("later commits may lie with them: nothing can tell")
    if found.keys_missing:
        output.note(f"{found.keys_missing} objects and names have no key any more, and cannot be read")
    if not found.dry_run:
        output.line(f"the catalog is {found.catalog}; `fungistor up` serves it")
    return 0
