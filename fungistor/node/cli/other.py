"""zdb, version."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence

from fungistor import __version__
from fungistor.node.cli.output import Output

COMMON_OPTIONS = ("--json",)
"""Accepted after `zdb`, too, where they change only how an error is told. `--home` means nothing to one daemon."""


def zdb(words: Sequence[str], output: Output) -> int:
    """Run one member daemon in this process, with the original's flags."""
    from fungistor.zdb.daemon import parse_arguments, run
    from fungistor.zdb.daemon.arguments import USAGE

    if not {"-h", "-help", "--help"}.isdisjoint(words):
        output.out.write(USAGE)
        return 0
    return run(parse_arguments([word for word in words if word not in COMMON_OPTIONS]), ready=None)


def version(arguments: argparse.Namespace, output: Output) -> int:  # noqa: ARG001
    from fungistor.coding.erasure import engine_name

    output.fields(
        {"version": __version__, "python": platform.python_version(), "engine": engine_name()},
        (("fungistor", "version"), ("python", "python"), ("erasure engine", "engine")),
    )
    return 0
