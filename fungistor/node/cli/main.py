"""From words to a command, and from its end to an exit code."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import cast

from fungistor.errors import DeniedError, FailedError, FungiStorError
from fungistor.node.cli import grammar, options
from fungistor.node.cli.output import Output
from fungistor.node.cli.rights import refuse_with_token

INTERRUPTED = 130
TERMINATED = 143

Handler = Callable[[object, Output], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, and give its exit code. Nothing is raised but SystemExit for `--help`."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Known before the line is parsed, so that a line that cannot be parsed is reported as it asks.
    output = Output(as_json="--json" in words)
    return guarded(output, lambda: _run(words, output))


def guarded(output: Output, work: Callable[[], int]) -> int:
    """Do the work of a command, and give its exit code: every way in which it can end is told, none as a traceback."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return work()
    except FungiStorError as error:
        output.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        if not output.as_json:
            output.note("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except OSError as error:
        failure = _as_failure(error)
        output.error(failure)
        return failure.exit_code


def _run(words: list[str], output: Output) -> int:
    place = options.find_command(words)
    command = words[place] if place < len(words) else ""
    if command == "zdb":
        # Its flags are the original daemon's, so none of them may reach this parser. What stands before it may.
        if words[:place]:
            options.build_parser().parse_args([*words[:place], "version"])
        return _load("other:zdb")(words[place + 1 :], output)
    parser = options.build_parser()
    if not words:
        parser.print_help(sys.stderr)
        return 2
    arguments = parser.parse_args(words)
    if not arguments.command:
        raise grammar.UsageError("no command is given", hint="see `fungistor --help`")
    if arguments.handler:
        refuse_with_token(arguments.handler)
    _join(arguments)
    return _load(arguments.handler)(arguments, output)


BY_THEMSELVES = ("version", "gateway", "catalog")
"""Commands that look at no network, or move its catalog."""


def _join(arguments: argparse.Namespace) -> None:
    """Have the home be one of the network that `--pool` and `--catalog` name."""
    if arguments.command == "up" or (arguments.pool is None and arguments.catalog is None):
        return
    if (arguments.command, getattr(arguments, "verb", "")) in (("pool", "apply"), ("catalog", "rebuild")):
        return  # they make the network that others join
    if arguments.command in BY_THEMSELVES:
        raise grammar.UsageError(f"`fungistor {arguments.command}` takes no --pool and no --catalog")
    from fungistor.node.cli.catalog import asked
    from fungistor.node.home import Home
    from fungistor.node.join import join

    join(Home.resolve(arguments.home), arguments.pool, asked(arguments, arguments.catalog))


def _load(handler: str) -> Handler:
    module, _, function = handler.partition(":")
    return cast("Handler", getattr(importlib.import_module(f"fungistor.node.cli.{module}"), function))


def _terminated(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """End by SIGTERM as by Ctrl-C, so that what was written aside is cleared away."""
    raise SystemExit(TERMINATED)


def _reader_left() -> int:
    """The reader of our output had enough (`| head`): that is its right and no failure of ours."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)  # or the interpreter would fail once more when it flushes
    os.close(devnull)
    return 0


def _as_failure(error: OSError) -> FungiStorError:
    what = f"{error.filename}: " if error.filename else ""
    said = f"{what}{(error.strerror or str(error)).lower()}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return DeniedError(said, hint="the files belong to somebody else, or are closed to you")
    if error.errno == errno.ENOSPC:
        return FailedError(said, hint="make room, and try again")
    return FailedError(said)
