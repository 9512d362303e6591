"""unpublish, pin, lock."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from fungistor.catalog.removal import Keep
from fungistor.errors import FungiStorError
from fungistor.node.cli.output import Output, size_text
from fungistor.node.cli.progress import ProgressLine
from fungistor.node.cli.rights import acting_of
from fungistor.node.home import Home
from fungistor.node.use import network_of

if TYPE_CHECKING:
    from fungistor.node.acting import Acting
    from fungistor.node.removal import Removal
    from fungistor.objects.results import Unpublished


@contextlib.contextmanager
def removal_of(arguments: argparse.Namespace, acting: Acting | None) -> Iterator[Removal]:
    """Open the network of a command for taking away."""
    with network_of(Home.resolve(arguments.home), acting) as network:
        from fungistor.node.removal import Removal  # after the checks: an error should not wait for its imports

        yield Removal(network.parts)


def unpublish(arguments: argparse.Namespace, output: Output) -> int:
    """Each CID by itself: one that cannot go does not hold up the others, and its exit code is the command's."""
    code = 0
    with removal_of(arguments, acting_of(arguments)) as removal:
        told: Iterable[tuple[str, str | Unpublished | FungiStorError]] = (
            ((text, _undone(removal, text)) for text in arguments.cids)
            if arguments.undo
            else removal.unpublish_all(arguments.cids, grace_s=arguments.grace, dry_run=arguments.dry_run)
        )
        for text, outcome in told:
            if isinstance(outcome, FungiStorError):
                if len(arguments.cids) == 1:
                    raise outcome
                output.error(outcome, text)
                code = code or outcome.exit_code
            elif isinstance(outcome, str):
                _tell_undone(outcome, output)
            else:
                _tell_unpublished(outcome, output)
    return code


def _undone(removal: Removal, text: str) -> str | FungiStorError:
    try:
        return removal.keep(text, Keep.UNDO)
    except FungiStorError as error:
        return error


def _tell_undone(cid: str, output: Output) -> None:
    if output.as_json:
        output.json_line({"cid": cid, "undone": True})
    else:
        output.line(f"{cid}  is published again")


def _tell_unpublished(result: Unpublished, output: Output) -> None:
    if output.as_json:
        output.json_line(result.to_json())
        return
    if result.dry_run:
        output.line(f"{result.cid}  would shred {result.shredded} blocks; others hold {result.still_readable}")
    elif result.until is not None:
        output.line(f"{result.cid}  can be brought back until {_shown(result.until)} by `unpublish --undo`")
    else:
        output.line(f"{result.cid}  {result.shredded} blocks shredded; others hold {result.still_readable}")
        output.note("`fungistor gc` gives the space back")
    for who in result.pending:
        output.note(f"not yet confirmed: {who}")


def collect(arguments: argparse.Namespace, output: Output) -> int:
    with removal_of(arguments, None) as removal, ProgressLine(output.err, enabled=not output.as_json) as progress:
        result = removal.collect(grace_s=arguments.grace, dry_run=arguments.dry_run, progress=progress)
    if output.as_json:
        output.json_line(result.to_json())
        return 0
    would = "would be " if result.dry_run else ""
    output.line(
        f"{size_text(result.freed)} {would}freed; {result.deleted} stripes {would}deleted,"
        f" {result.repacked} packed anew, {result.kept} kept for what uses them"
    )
    if result.waiting and not result.dry_run:
        output.note(f"{result.waiting} dropped manifests wait: for their grace to end, or for members that are away")
    if result.pending:
        output.note(f"to be gone on with when these are back: {', '.join(result.pending)}")
    if result.stuck:
        output.note(f"these cannot compact, and keep the space: {', '.join(result.stuck)}")
    return 0


def pin(arguments: argparse.Namespace, output: Output) -> int:
    what = Keep.PIN if arguments.verb == "add" else Keep.UNPIN
    with removal_of(arguments, acting_of(arguments)) as removal:
        for text in arguments.cids:
            cid = removal.keep(text, what)
            if output.as_json:
                output.json_line({"cid": cid, "pinned": what is Keep.PIN})
            else:
                output.line(cid)
    return 0


def pins(arguments: argparse.Namespace, output: Output) -> int:
    with removal_of(arguments, acting_of(arguments)) as removal:
        output.rows(removal.kept(), ("CID", "PINNED", "LOCKED UNTIL", "NAME"), ("cid", "pinned", "locked:time", "name"))
    return 0


def lock(arguments: argparse.Namespace, output: Output) -> int:
    with removal_of(arguments, acting_of(arguments)) as removal:
        cid = removal.keep(arguments.cid, Keep.LOCK, arguments.until)
    if output.as_json:
        output.json_line({"cid": cid, "locked": arguments.until})
    else:
        output.line(f"{cid}  is locked until {_shown(arguments.until)}")
    return 0


def _shown(moment: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
