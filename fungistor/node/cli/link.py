"""link: a URL by which anybody reads one path of a private object, for a time."""

from __future__ import annotations

import argparse
import time

from fungistor.node.cli.output import Output
from fungistor.node.cli.rights import acting_of
from fungistor.node.home import Home
from fungistor.node.signed_links import make_link
from fungistor.node.use import network_of
from fungistor.objects.paths import parse_cid_path


def link(arguments: argparse.Namespace, output: Output) -> int:
    text = arguments.cid_path if arguments.path is None else f"{arguments.cid_path}/{arguments.path.lstrip('/')}"
    path = parse_cid_path(text)
    with network_of(Home.resolve(arguments.home), acting_of(arguments)) as network:
        made = make_link(network, path, arguments.expires, arguments.format, arguments.base)
    if output.as_json:
        output.json_line(made.to_json())
        return 0
    output.line(made.url)
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(made.expires))
    output.note(f"whoever has it reads {made.path} until {until}, by the gateway's clock")
    if not made.private:
        output.note("it is public: anybody who has the CID reads it without the link")
    return 0
