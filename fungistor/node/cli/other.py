"""zdb, version."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fungistor import __version__
from fungistor.node.cli.grammar import Parser
from fungistor.node.cli.output import Output, safe

COMMON_OPTIONS = ("--json",)
"""Accepted after `zdb`, too, where they change only how an error is told. `--home` means nothing to one daemon."""


def zdb(words: Sequence[str], output: Output) -> int:
    """Run one member daemon in this process, with the original's flags."""
    from fungistor.zdb.daemon import parse_arguments, run
    from fungistor.zdb.daemon.arguments import USAGE
    from fungistor.zdb.daemon.offline import VERBS

    if not {"-h", "-help", "--help"}.isdisjoint(words):
        output.out.write(USAGE)
        return 0
    if not {"-version", "--version"}.isdisjoint(words):
        output.out.write(f"fungistor {__version__}\n")
        return 0
    if words and words[0] in VERBS:
        return _zdb_offline(words[0], words[1:], output)
    return run(parse_arguments([word for word in words if word not in COMMON_OPTIONS]), ready=None)


def _zdb_offline(verb: str, words: Sequence[str], output: Output) -> int:
    """Run a tool on the closed folders of a daemon."""
    from fungistor.zdb.daemon.compaction import DEAD_PERCENT

    parser = Parser(prog=f"fungistor zdb {verb}", description="A tool on the closed folders of a member daemon.")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--index", required=True, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    if verb == "compact":
        parser.add_argument("--percent", type=int, choices=range(101), default=DEAD_PERCENT, metavar="N",
                            help="drop files of which this share is dead (25)")  # fmt: skip
        parser.add_argument("--force", action="store_true", help="also where history is kept")
    given = parser.parse_args(list(words))
    whole = True
    for row in _offline_rows(verb, given, output):
        whole = whole and row.get("whole") is not False
        if output.as_json or given.json:
            output.json_line(dict(row))
        else:
            output.line("  ".join(f"{name} {safe(str(value))}" for name, value in row.items()))
    return 0 if whole else 1


def _offline_rows(verb: str, given: argparse.Namespace, output: Output) -> Iterator[Mapping[str, Any]]:
    from fungistor.zdb.daemon import offline

    def note(text: str) -> None:
        # Names of namespaces are whatever a client has sent.
        output.note(safe(text))

    if verb == "check":
        return offline.check(given.data, given.index, note)
    if verb == "compact":
        return offline.compact(given.data, given.index, note, percent=given.percent, force=given.force)
    tool = offline.rebuild_index if verb == "rebuild-index" else offline.dump
    return tool(given.data, given.index, note)


def version(arguments: argparse.Namespace, output: Output) -> int:  # noqa: ARG001
    from fungistor.coding.erasure import engine_name

    output.fields(
        {"version": __version__, "python": platform.python_version(), "engine": engine_name()},
        (("fungistor", "version"), ("python", "python"), ("erasure engine", "engine")),
    )
    return 0
