"""``python -m gateway.check`` (`fungistor gateway check`): what each Host would do, and what stands in its way.

It asks the same `decide` as a request does, with a well-known CID, so that what it prints is what would happen.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from fungistor.errors import FungiStorError, UnavailableError
from fungistor.node.home import Home
from fungistor.node.names import MAP_VARIABLE, open_names
from gateway.errors import RefusedError
from gateway.hosts import HostTable, PlaceKind, load_hosts
from gateway.mounts import Standing
from gateway.names import Names
from gateway.requests import Answer
from gateway.virtual_hosts import Asked, Mounted, bare, decide, needs_dns

SAMPLE = "bafkqaaa"
"""The empty file, whose bytes stand in its CID: every gateway has it."""

KEY = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one Host does with one path."""

    host: str
    path: str
    does: str
    status: int | None = None
    location: str | None = None
    trustless: bool = False
    note: str | None = None


def examine(table: HostTable, names: Names, host: str, scheme: str) -> list[Finding]:
    """Try the paths that matter on a Host. Asks DNS where a request would."""
    place = table.place(host)
    paths = ["/"] if place.kind is PlaceKind.SUBDOMAIN else [f"/ipfs/{SAMPLE}", f"/ipns/{KEY}", "/"]
    return [_try(table, names, Asked(host, scheme, path.encode())) for path in paths]


def _try(table: HostTable, names: Names, asked: Asked) -> Finding:
    path = asked.raw_path.decode()
    known, note = False, None
    if needs_dns(table, asked):
        try:
            known = names.has_dnslink(bare(asked.host))
            note = "it has a DNSLink" if known else "it has no DNSLink"
        except UnavailableError as error:
            note = f"DNS: {error.message}"
    try:
        decided = decide(table, asked, lambda _: known)
    except FungiStorError as error:
        status = error.status if isinstance(error, RefusedError) else 400
        return Finding(asked.host, path, "refuses", status, note=error.message)
    if isinstance(decided, Answer):
        return Finding(asked.host, path, "redirects", decided.status, decided.headers["Location"], note=note)
    if isinstance(decided, Mounted):
        mount = decided.mount
        content = decided.raw_path.decode("latin-1")
        does = f"gives {content}" if mount.standing is not Standing.PATH else "gives content"
        return Finding(asked.host, path, f"{does} ({mount.standing.value})", trustless=mount.is_trustless, note=note)
    return Finding(asked.host, path, "shows the gateway's own page", note=note)


def _hosts_of(table: HostTable, environment: str) -> list[str]:
    """Hosts worth trying where none is named: the table's, a subdomain of each, an address, and the fixed map's."""
    hosts = ["127.0.0.1:8480"]
    for name in table.names():
        example = name.replace("*", "any", 1)
        hosts.append(example)
        if table.place(example).config.use_subdomains:
            hosts += [f"{SAMPLE}.ipfs.{example}", f"{KEY}.ipns.{example}"]
    hosts += [entry.partition(":")[0] for entry in environment.split(",") if entry]
    return hosts


def main(argv: Sequence[str]) -> int:
    """Print a line a Host and path; 1 where a Host that was asked about gives nothing."""
    arguments = _parse(argv)
    try:
        table = load_hosts(arguments.gateway_hosts)
        if arguments.table_only:
            return 0
        names = open_names(Home(os.path.abspath(arguments.home)), os.environ)
        hosts = arguments.hosts or _hosts_of(table, os.environ.get(MAP_VARIABLE, ""))
        findings = [(host, examine(table, names, host, arguments.scheme)) for host in hosts]
    except FungiStorError as error:
        _tell_error(error, as_json=arguments.json)
        return error.exit_code
    write = _json_line if arguments.json else _text_line
    for _, found in findings:
        for finding in found:
            sys.stdout.write(write(finding) + "\n")
    is_dead = any(all(one.does == "refuses" for one in found) for _, found in findings)
    return 1 if is_dead else 0


def _text_line(finding: Finding) -> str:
    words = [f"{finding.host}{finding.path}", "->", finding.does]
    if finding.status is not None:
        words.append(f"with {finding.status}")
    if finding.location is not None:
        words.append(f"to {finding.location}")
    if finding.trustless:
        words.append("trustlessly")
    if finding.note is not None:
        words.append(f"[{finding.note}]")
    return " ".join(words)


def _json_line(finding: Finding) -> str:
    return json.dumps(asdict(finding))


def _tell_error(error: FungiStorError, *, as_json: bool) -> None:
    told = {"error": {"kind": error.kind, "message": error.message, "hint": error.hint}}
    text = f"error: {error.message}" + (f"\n  {error.hint}" if error.hint else "")
    sys.stderr.write((json.dumps(told) if as_json else text) + "\n")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fungistor gateway check")
    parser.add_argument("--home", required=True)
    parser.add_argument("--gateway-hosts")
    parser.add_argument("--table-only", action="store_true", help="only read the table, as `up` does before it starts")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--scheme", choices=("http", "https"), default="http")
    parser.add_argument("hosts", nargs="*")
    return parser.parse_args(list(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
