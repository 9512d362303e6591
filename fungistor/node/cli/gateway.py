"""gateway check: handed to the gateway's own room, which no other room may import."""

from __future__ import annotations

import argparse
import subprocess
import sys

from fungistor.node.cli.output import Output
from fungistor.node.home import Home


def check(arguments: argparse.Namespace, output: Output) -> int:
    """Run the self-check as a process of its own, with the interpreter that runs this command."""
    words = ["--home", Home.resolve(arguments.home).root]
    if arguments.gateway_hosts is not None:
        words += ["--gateway-hosts", arguments.gateway_hosts]
    if output.as_json:
        words.append("--json")
    ran = subprocess.run([sys.executable, "-P", "-m", "gateway.check", *words, "--", *arguments.hosts], check=False)
    return ran.returncode
