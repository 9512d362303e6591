"""publish, get, cat, ls, stat."""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import TYPE_CHECKING

from fungistor.errors import ConflictError, FailedError, NotPermittedError, UnavailableError
from fungistor.node.cli.grammar import UsageError
from fungistor.node.cli.output import Output, seconds_text, size_text
from fungistor.node.cli.progress import ProgressLine
from fungistor.node.cli.rights import acting_of
from fungistor.node.home import Home
from fungistor.node.use import network_of, publisher_of
from fungistor.objects.results import PublishFailure, PublishOptions, PublishOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator


PASSING_CODES = frozenset((UnavailableError.exit_code, ConflictError.exit_code))
"""Of failures that trying again may cure."""


def publish(arguments: argparse.Namespace, output: Output) -> int:
    home = Home.resolve(arguments.home)
    if arguments.wait_max is not None and not arguments.wait:
        raise UsageError("--wait-max without --wait", hint="add --wait")
    paths = [*arguments.paths, *_listed(arguments.paths_from, arguments.paths)]
    options = PublishOptions(
        profile=arguments.profile,
        name=arguments.name,
        wrap=arguments.wrap,
        hidden=arguments.hidden,
        only_hash=arguments.only_hash,
        preserve_mode=arguments.preserve_mode,
        preserve_mtime=arguments.preserve_mtime,
        policy=arguments.policy,
        expires_s=arguments.expires,
        private=arguments.private,
        wait_s=(math.inf if arguments.wait_max is None else arguments.wait_max) if arguments.wait else 0.0,
    )
    with (
        publisher_of(home, acting_of(arguments), only_hash=options.only_hash) as network,
        _progress(output) as progress,
    ):
        return _publish_all(network.publish(paths, options, progress), output)


def _listed(file: str | None, others: list[str]) -> list[str]:
    """PATHs out of a file, in the bytes that the file system has."""
    if file is None:
        if not others:
            raise UsageError("no PATH", hint="name a file or a folder, or a list of them with --paths-from")
        return []
    if file == "-" and "-" in others:
        raise UsageError("`-` is the standard input: it is a PATH or the list of them, not both")
    try:
        if file == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(file, "rb") as lines:
                data = lines.read()
    except OSError as error:
        raise FailedError(
            f"{file}: cannot be read: {error.strerror}", hint="name a file of paths, one a line"
        ) from error
    listed = [os.fsdecode(line) for line in data.split(b"\n") if line]
    if not listed and not others:
        raise UsageError(f"{file} names no PATH", hint="put one on each line")
    return listed


def _publish_all(results: Iterator[PublishOutcome | PublishFailure], output: Output) -> int:
    codes: set[int] = set()
    for result in results:
        if isinstance(result, PublishFailure):
            output.error(result.error, result.path)
            # What is wrong with a local file is a failure of the run, whatever its kind.
            told = result.error.exit_code in PASSING_CODES or isinstance(result.error, NotPermittedError)
            codes.add(result.error.exit_code if told else 1)
            continue
        if result.skipped:
            output.note(f"{result.path}: {result.skipped} hidden entries left out; --hidden takes them")
        if output.as_json:
            output.json_line(result.to_json())
        else:
            output.line(result.cid)
            output.note(_publish_words(result))
    return 0 if not codes else codes.pop() if len(codes) == 1 else 1


def _publish_words(result: PublishOutcome) -> str:
    words = [f"{result.name or result.path}: {size_text(result.size)} in {seconds_text(result.seconds)}"]
    if result.revision is None:
        words.append("nothing stored")
    else:
        overhead = "" if result.overhead is None else f" ({result.overhead:.2f} x)"
        words.append(f"{size_text(result.stored)} on members{overhead}, {size_text(result.new)} of it new")
        zones = f", or of {result.survives_zones} whole {result.zone_level}s" if result.survives_zones else ""
        words.append(f"survives {result.survives} further losses{zones}")
        if result.owed:
            words.append(f"{result.owed} shards still owed")
    return "; ".join(words)


def get(arguments: argparse.Namespace, output: Output) -> int:
    with network_of(Home.resolve(arguments.home), acting_of(arguments)) as network:
        with _progress(output) as progress:
            result = network.get(arguments.cid_path, arguments.output, arguments.force, arguments.no_cache, progress)
        if output.as_json:
            output.json_line(result.to_json())
        else:
            output.note(f"{result.out}: {size_text(result.size)} in {seconds_text(result.seconds)}")
    return 0


def cat(arguments: argparse.Namespace, output: Output) -> int:
    """Write bytes as they are; `--json` changes only how an error is told."""
    out = output.out.buffer if hasattr(output.out, "buffer") else sys.stdout.buffer
    with network_of(Home.resolve(arguments.home), acting_of(arguments)) as network:
        for piece in network.cat(arguments.cid_path, arguments.no_cache):
            out.write(piece)
        out.flush()
    return 0


def ls(arguments: argparse.Namespace, output: Output) -> int:
    with network_of(Home.resolve(arguments.home), acting_of(arguments)) as network:
        entries = network.ls(arguments.cid_path)
        output.rows(entries, ("CID", "SIZE", "TYPE", "NAME"), ("cid", "size:size", "type", "name"))
    return 0


def stat(arguments: argparse.Namespace, output: Output) -> int:
    with network_of(Home.resolve(arguments.home), acting_of(arguments)) as network:
        columns = (
            ("cid", "cid"),
            ("type", "type"),
            ("size", "size:size"),
            ("sealed", "sealed:size"),
            ("stored", "stored:size"),
            ("stripes", "stripes"),
            ("policy", "policy"),
            ("survives", "survives"),
            ("private", "private"),
            ("survives zones", "survives_zones"),
            ("zone level", "zone_level"),
        )
        output.fields(network.stat(arguments.cid_path).to_json(), columns)
    return 0


def _progress(output: Output) -> ProgressLine:
    return ProgressLine(output.err, enabled=not output.as_json)
