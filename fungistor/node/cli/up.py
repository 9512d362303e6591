"""up: a whole network in one command."""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys

from fungistor.errors import FailedError, InvalidError
from fungistor.node.cli.catalog import asked
from fungistor.node.cli.keys import ask
from fungistor.node.cli.output import Output
from fungistor.node.home import Home
from fungistor.node.up import UpOptions, serve


def run(arguments: argparse.Namespace, output: Output) -> int:
    log_to_stderr()

    def ready(said: dict[str, object]) -> None:
        if output.as_json:
            output.json_line(said)

    return serve(options_of(arguments), say=output.note, on_ready=ready)


def options_of(arguments: argparse.Namespace) -> UpOptions:
    """Give what the words of an `up` ask for."""
    return UpOptions(
        home=Home.resolve(arguments.home),
        members=arguments.members,
        gateway=arguments.gateway,
        ready_file=arguments.ready_file,
        admin=arguments.admin,
        sync=not arguments.no_sync,
        catalog=asked(arguments, arguments.catalog),
        pool=arguments.pool,
        gateway_hosts=_checked(arguments.gateway_hosts),
        prompt=ask,
    )


def _checked(table: str | None) -> str | None:
    """Have the gateway read its table of hosts before anything is started.

    Raises: InvalidError with the gateway's own words.
    """
    if table is None:
        return None
    words = ["--home", ".", "--gateway-hosts", table, "--table-only", "--json"]
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "gateway.check", *words], stderr=subprocess.PIPE, text=True, check=False
    )
    if ran.returncode:
        try:
            said = json.loads(ran.stderr.splitlines()[-1])["error"]
        except (ValueError, KeyError, IndexError):
            raise FailedError(f"the gateway could not read {table}: {ran.stderr[-300:]}") from None
        raise InvalidError(said["message"], hint=said["hint"])
    return os.path.abspath(table)


def log_to_stderr() -> None:
    """Have this process's log on stderr, a line an event."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
    )
