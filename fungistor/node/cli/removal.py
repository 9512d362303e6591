"""unpublish, pin, lock."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fungistor.catalog.removal import Keep
from fungistor.node.cli.output import Output
from fungistor.node.home import Home
from fungistor.node.use import network_of

if TYPE_CHECKING:
    from fungistor.node.removal import Removal


@contextlib.contextmanager
def removal_of(arguments: argparse.Namespace) -> Iterator[Removal]:
    """Open the network of a command for taking away."""
    with network_of(Home.resolve(arguments.home)) as network:
        from fungistor.node.removal import Removal  # after the checks: an error should not wait for its imports

        yield Removal(network.parts)


def unpublish(arguments: argparse.Namespace, output: Output) -> int:
    with removal_of(arguments) as removal:
        if arguments.undo:
            cid = removal.keep(arguments.cid, Keep.UNDO)
            if output.as_json:
                output.json_line({"cid": cid, "undone": True})
            else:
                output.line(f"{cid}  is published again")
            return 0
        result = removal.unpublish(arguments.cid, grace_s=arguments.grace, dry_run=arguments.dry_run)
    if output.as_json:
        output.json_line(result.to_json())
        return 0
    if result.dry_run:
        output.line(f"{result.cid}  would shred {result.shredded} blocks; others hold {result.still_readable}")
    elif result.until is not None:
        output.line(f"{result.cid}  can be brought back until {_shown(result.until)} by `unpublish --undo`")
    else:
        output.line(f"{result.cid}  {result.shredded} blocks shredded; others hold {result.still_readable}")
        output.note("`fungistor gc` gives the space back")
    for who in result.pending:
        output.note(f"not yet confirmed: {who}")
    return 0


def pin(arguments: argparse.Namespace, output: Output) -> int:
    what = Keep.PIN if arguments.verb == "add" else Keep.UNPIN
    with removal_of(arguments) as removal:
        for text in arguments.cids:
            cid = removal.keep(text, what)
            if output.as_json:
                output.json_line({"cid": cid, "pinned": what is Keep.PIN})
            else:
                output.line(cid)
    return 0


def pins(arguments: argparse.Namespace, output: Output) -> int:
    with removal_of(arguments) as removal:
        output.rows(removal.kept(), ("CID", "PINNED", "LOCKED UNTIL", "NAME"), ("cid", "pinned", "locked:time", "name"))
    return 0


def lock(arguments: argparse.Namespace, output: Output) -> int:
    with removal_of(arguments) as removal:
        cid = removal.keep(arguments.cid, Keep.LOCK, arguments.until)
    if output.as_json:
        output.json_line({"cid": cid, "locked": arguments.until})
    else:
        output.line(f"{cid}  is locked until {_shown(arguments.until)}")
    return 0


def _shown(moment: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
