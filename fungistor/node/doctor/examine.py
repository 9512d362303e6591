"""One look at everything, in the order in which one thing stands on another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from fungistor.errors import FungiStorError
from fungistor.node.config import load_config
from fungistor.node.control import ask
from fungistor.node.doctor.catalog import look_at_catalog, look_at_files
from fungistor.node.doctor.copies import look_at_copies
from fungistor.node.doctor.disk import look_at_disk
from fungistor.node.doctor.finding import Finding, bad, good, of_error, unknown
from fungistor.node.doctor.keys import look_at_keys
from fungistor.node.doctor.members import ask_members, look_at_clocks, look_at_members
from fungistor.node.home import HOME_VERSION, NOT_RUNNING_HINT, Home
from fungistor.node.members import pool_members
from fungistor.node.network import Network
from fungistor.node.use import network_of
from fungistor.objects.results import MemberLine

CONTROL_S = 5.0


def examine(home: Home, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at a home and at the network it belongs to. Nothing is changed."""
    if not home.exists():
        yield bad(
            "formats", f"there is no network in {home.root}", "`fungistor up` makes one; or give the right --home"
        )
        return
    try:
        home.check_version()
    except FungiStorError as error:
        yield of_error("formats", error)
        return
    yield _version(home)
    yield from _guarded("disk", lambda: look_at_disk(home))
    yield from _guarded("catalog", lambda: look_at_files(home))
    yield from _guarded("keys", lambda: look_at_keys(home, environ))
    yield from _guarded("members", lambda: _look_at_network(home))


def _version(home: Home) -> Finding:
    version = home.version()
    if version < HOME_VERSION:
        return bad(
            "formats",
            f"the home is of version {version}, this program's is {HOME_VERSION}",
            "the next `up` upgrades it",
        )
    return good("formats", f"the home is of version {version}, as this program makes it")


def _look_at_network(home: Home) -> Iterator[Finding]:
    config = load_config(home)
    if config.pool is None and not home.is_running():
        yield bad("members", "the network does not run, so members and catalog were not asked", NOT_RUNNING_HINT)
        yield unknown("clocks", "no member runs, so this clock is compared with none")
        return
    running = home.running()
    if running is not None and not running.sync:
        yield bad(
            "disk", "nothing waits for the disk (--no-sync): a power cut takes what is new", "leave --no-sync out"
        )
    with network_of(home) as network:
        yield from _guarded("catalog", lambda: look_at_catalog(network.catalog))
        yield from _guarded("catalog", lambda: look_at_copies(network.parts.copier))
        told = ask_members(pool_members(home, config))
        yield from _guarded("members", lambda: look_at_members(_members(home, network), told))
        newest_s = max((record.published for record in network.catalog.records()), default=None)
        yield from look_at_clocks(told, newest_s, time.time())


def _members(home: Home, network: Network) -> list[MemberLine]:
    """The probes' view; `up` knows besides who was stopped by hand, or is wiped."""
    lines = list(network.status().members)
    try:
        said = ask(home, {"op": "members"}, CONTROL_S)["members"]
    except FungiStorError:
        return lines
    known = {str(line["id"]): line for line in said} if isinstance(said, list) else {}
    return [
        replace(line, reason=str(known[line.id]["reason"]))
        if line.id in known and line.state in ("down", "paused")
        else line
        for line in lines
    ]


def _guarded(area: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What one look found; an error that ended it is a finding, and the next look goes on."""
    try:
        yield from look()
    except FungiStorError as error:
        yield of_error(area, error)
    except OSError as error:
        yield bad(area, f"{error.filename or 'a file'}: {error.strerror}", "see its disk, mount and owner")
