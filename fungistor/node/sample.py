"""`python -m fungistor.node.sample` (`make run`): a whole network with something in it.

It takes the options of `fungistor up`, and the home that every command takes without `--home`, so that in another
terminal `fungistor status` or `fungistor ls CID` speak of this network, and what was published is there the next time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fungistor.errors import FungiStorError
from fungistor.node.cli.main import guarded
from fungistor.node.cli.options import build_parser
from fungistor.node.cli.output import Output
from fungistor.node.cli.up import log_to_stderr, options_of
from fungistor.node.home import Home
from fungistor.node.up import serve
from fungistor.node.use import network_of
from fungistor.objects.results import Json, PublishFailure, PublishOptions, no_progress

SITE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample_site")
NAME = "sample"


def main(argv: Sequence[str]) -> int:
    """Run a network, publish the sample site in it, say its CID and URL, and serve until a signal comes."""
    output = Output(as_json="--json" in argv)
    return guarded(output, lambda: _run(argv, output))


def _run(argv: Sequence[str], output: Output) -> int:
    arguments = build_parser().parse_args(["up", *argv])
    log_to_stderr()
    options = options_of(arguments)

    def ready(said: Json) -> None:
        cid = publish_site(options.home)
        result: Json = {"cid": cid, "url": f"{said['gateway']}/ipfs/{cid}/", "home": options.home.root}
        output.fields(result, (("CID", "cid"), ("URL", "url")))
        output.note("open the URL; Ctrl-C ends everything")

    return serve(options, say=output.note, on_ready=ready)


def publish_site(home: Home) -> str:
    """Publish the bundled site and give its CID. The second time it costs nothing.

    Raises: FungiStorError.
    """
    cid = ""
    with network_of(home) as network:
        for result in network.publish([SITE], PublishOptions(name=NAME), no_progress):
            if isinstance(result, PublishFailure):
                raise result.error
            cid = result.cid
    if not cid:
        raise FungiStorError(f"nothing was published of {SITE}")
    return cid


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
