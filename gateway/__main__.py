"""``python -m gateway``: a worker of `fungistor up`. The one file of this room that knows how a node is joined."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import ipaddress
import logging
import os
import socket
import sys
import threading

from fungistor.errors import FungiStorError
from fungistor.names import multiaddress
from fungistor.node.config import load_config
from fungistor.node.gateway_tenants import GatewayTenants
from fungistor.node.home import Home
from fungistor.node.metrics import Numbers, save_numbers
from fungistor.node.names import open_names
from fungistor.node.network import Network
from fungistor.node.wiring import open_network
from gateway.delegated import Announcement
from gateway.denylist.files import standard_folders
from gateway.hosts import load_hosts
from gateway.operations.desk import Desk, DeskFiles
from gateway.operations.rules_file import FILE_NAME
from gateway.settings import Settings
from gateway.worker import die_with, ignore_interrupt, serve


def main(argv: list[str]) -> int:
    """Serve the network of a home on an inherited socket; return the exit status."""
    parent = os.getppid()
    arguments = _parse(argv)
    die_with(arguments.parent_pid or parent)
    ignore_interrupt()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    settings = dataclasses.replace(Settings(), access_log=arguments.access_log)
    home = Home(os.path.abspath(arguments.home))
    try:
        hosts = load_hosts(arguments.gateway_hosts)
        names = open_names(home, os.environ)
        network = open_network(arguments.home, cached=True)
    except FungiStorError as error:
        sys.stderr.write(f"gateway worker: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    assert isinstance(network, Network)  # the other kind is for commands without a home
    try:
        desk = Desk(settings, _files(home, network), GatewayTenants(network.catalog, network.parts.keys))
        threading.Thread(target=network.warm_up, name="warm up", daemon=True).start()
        with socket.socket(fileno=arguments.fd) as listener:
            serve(
                network.content,
                listener,
                ready_fd=arguments.ready_fd,
                settings=settings,
                names=names,
                hosts=hosts,
                desk=desk,
                announcement=_announcement(home, network, listener),
                hosts_again=lambda: load_hosts(arguments.gateway_hosts),
            )
    except FungiStorError as error:
        sys.stderr.write(f"gateway worker: {error}\n")
        return error.exit_code
    finally:
        network.close()
    return 0


def _announcement(home: Home, network: Network, listener: socket.socket) -> Announcement:
    """Who this node is to IPFS. Unless its configuration says where it is reached, only who is near can know."""
    urls = load_config(home).announce
    if not urls:
        host, port = listener.getsockname()[:2]
        is_any = ipaddress.ip_address(host).is_unspecified
        urls = () if is_any else (f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}",)
    return Announcement(network.peer_id(), tuple(multiaddress.of_url(url) for url in urls))


def _files(home: Home, network: Network) -> DeskFiles:
    """What the desk looks at every second, in this home."""

    def save(numbers: Numbers) -> None:
        for name, value in network.cache_numbers().items():
            numbers.gauge(name, value)
        with contextlib.suppress(OSError):
            save_numbers(home.gateway_numbers, numbers)

    return DeskFiles(
        rules=home.path(FILE_NAME),
        denylist_folders=tuple(standard_folders(home.root)),
        changes=network.answers_change,
        not_ready=network.why_not_ready,
        save=save,
    )


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gateway", description="A gateway worker of `fungistor up`.")
    parser.add_argument("--home", required=True, help="the network's home folder")
    parser.add_argument("--fd", type=int, required=True, help="inherited listening socket")
    parser.add_argument("--ready-fd", type=int, help="inherited descriptor to write a line to once requests are served")
    parser.add_argument("--parent-pid", type=int, help="leave when this is not the parent")
    parser.add_argument("--gateway-hosts", metavar="F", help="table of hosts, in the shape of Kubo's PublicGateways")
    parser.add_argument("--access-log", action="store_true", help="one line of JSON a request on stderr")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
