"""keys list, rotate, renew, passphrase, export, import."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import sys
from dataclasses import dataclass

from fungistor.errors import DeniedError, FungiStorError, InvalidError, NotFoundError
from fungistor.ids import TenantNumber
from fungistor.keys.files import root_key_facts
from fungistor.keys.passphrase import PASSPHRASE_FILE_VARIABLE, checked
from fungistor.keys.ring import fingerprint
from fungistor.keys.table import KeyTable
from fungistor.node.cli.given_file import read_given
from fungistor.node.cli.output import Output
from fungistor.node.cli.progress import ProgressLine
from fungistor.node.files import write_atomic
from fungistor.node.home import Home
from fungistor.node.new_keys import (
    KeyPlaces,
    Rotated,
    bring_back,
    renew_node,
    rotate_root,
    rotate_tenant,
    set_passphrase,
)
from fungistor.objects.results import Json

WORDS_BYTES_MAX = 16 << 10
"""Sixteen shares of the longest kind take half of it."""


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A key as it is listed: what it is, where it lies, and never what it is made of."""

    line: Json

    def to_json(self) -> Json:
        """The keys of `--json`."""
        return self.line


def listed(arguments: argparse.Namespace, output: Output) -> int:
    """List the keys of this home."""
    places = _places(arguments)
    lines = [_root_line(places)]
    node = places.node()
    lines.append(
        {"key": "node", "place": places.node_file, "fingerprint": node.root_fingerprint, "issuer": node.issuer.hex()}
    )
    with contextlib.closing(KeyTable(places.home.key_table)) as table:
        counts = table.counts()
        for tenant in sorted({*table.tenants(), *node.tenant_keys}):
            held = tenant in node.tenant_keys
            lines.append(
                {"key": f"tenant {tenant}", "place": places.home.key_table, "held": held, "keys": counts.get(tenant, 0)}
            )
    columns = ("key", "fingerprint", "keys:right", "place")
    output.rows([KeyLine(line) for line in lines], ("KEY", "FINGERPRINT", "KEYS", "PLACE"), columns)
    return 0


def _root_line(places: KeyPlaces) -> Json:
    if places.is_root_given:
        return {"key": "root", "place": "FUNGISTOR_ROOT_KEY", "fingerprint": fingerprint(places.root())}
    try:
        mark, sealed = root_key_facts(places.root_file)
    except NotFoundError:
        return {"key": "root", "place": None, "fingerprint": None}
    return {"key": "root", "place": places.root_file, "fingerprint": mark, "passphrase": sealed}


def rotate(arguments: argparse.Namespace, output: Output) -> int:
    """Give a tenant, or the network, another key."""
    places = _places(arguments)
    if arguments.root:
        done = rotate_root(places)
    else:
        with ProgressLine(output.err, enabled=not output.as_json) as progress:
            done = rotate_tenant(places, TenantNumber(arguments.tenant or 0), progress)
    _say_rotated(done, places, output, is_root=arguments.root)
    return 0


def _say_rotated(done: Rotated, places: KeyPlaces, output: Output, *, is_root: bool) -> None:
    line: Json = {"rotated": done.what, "keys": done.keys, "fingerprint": done.fingerprint, "swept": done.swept}
    output.fields(line, (("rotated", "rotated"), ("keys wrapped anew", "keys"), ("root key", "fingerprint")))
    if is_root:
        output.note(
            f"back up {places.root_file} anew: the old root key, and what was exported of it, opens nothing more"
        )
        if places.is_root_given:
            output.note("FUNGISTOR_ROOT_KEY still holds the old one: unset it")
    if not done.swept:
        output.note(
            "old wrapped keys may still be read in etcd's own past: have its administrator compact and defragment"
        )
    output.note("other machines of this network take it up with `fungistor keys renew`")


def renew(arguments: argparse.Namespace, output: Output) -> int:
    """Take keys anew that were rotated on another machine."""
    keys = renew_node(_places(arguments))
    output.fields(
        {"renewed": True, "tenants": sorted(keys.tenant_keys), "fingerprint": keys.root_fingerprint},
        (("tenants", "tenants"), ("root key", "fingerprint")),
    )
    return 0


def passphrase(arguments: argparse.Namespace, output: Output) -> int:
    """Put the root key's file under a passphrase, or under another, or under none."""
    places = _places(arguments)
    chosen = None if arguments.remove else _new_passphrase(arguments.new_file)
    set_passphrase(places, chosen)
    output.fields({"passphrase": chosen is not None, "place": places.root_file}, (("root key", "place"),))
    return 0


def export(arguments: argparse.Namespace, output: Output) -> int:
    """Write the root key as words, or as shares of which some bring it back."""
    from fungistor.keys.words import to_shares, to_words

    places = _places(arguments)
    root = places.root()
    if arguments.shares is None:
        lines, needed = to_words(root), None
    else:
        needed, count = arguments.shares
        lines = to_shares(root, needed, count)
    if arguments.output is not None:
        _write_new(arguments.output, "".join(f"{line}\n" for line in lines).encode())
        output.fields(
            {"place": arguments.output, "lines": len(lines), "needed": needed, "fingerprint": fingerprint(root)},
            (("written to", "place"), ("root key", "fingerprint")),
        )
        return 0
    for line in lines:
        if output.as_json:
            output.json_line({"words": line, "needed": needed, "fingerprint": fingerprint(root)})
        else:
            output.line(line)
    if needed is not None:
        output.note(f"any {needed} of these {len(lines)} lines bring the root key back: give each to somebody else")
    output.note(f"fingerprint {fingerprint(root)}")
    return 0


def recover(arguments: argparse.Namespace, output: Output) -> int:
    """Bring the root key back from words or shares."""
    from fungistor.keys.words import from_lines

    places = _places(arguments)
    lines = [line for path in arguments.files or ["-"] for line in _read(path).splitlines()]
    root = from_lines(lines)
    chosen = _new_passphrase(arguments.passphrase_file) if arguments.passphrase_file else None
    is_new = bring_back(places, root, chosen)
    output.fields(
        {"place": places.root_file, "fingerprint": fingerprint(root), "new": is_new},
        (("root key", "place"), ("fingerprint", "fingerprint")),
    )
    return 0


def ask(what: str) -> bytes:
    """Ask the person at the terminal. Raises: DeniedError where there is none."""
    if not sys.stdin.isatty():
        raise DeniedError(
            f"{what} is under a passphrase, and there is no terminal to ask at",
            hint=f"set {PASSPHRASE_FILE_VARIABLE} to a file that holds it",
        )
    return getpass.getpass(f"passphrase of {what}: ").encode()


def _new_passphrase(path: str | None) -> bytes:
    if path is not None:
        return checked(_read(path).rstrip("\r\n").encode())
    if not sys.stdin.isatty():
        raise InvalidError("there is no terminal to ask for a passphrase at", hint="give --new-file F")
    first, second = (getpass.getpass(f"{words} passphrase: ").encode() for words in ("new", "again, the new"))
    if first != second:
        raise InvalidError("the two are not the same", hint="nothing was changed; try again")
    return checked(first)


def _places(arguments: argparse.Namespace) -> KeyPlaces:
    return KeyPlaces(Home.resolve(arguments.home), os.environ, ask)


def _read(path: str) -> str:
    return read_given(path, WORDS_BYTES_MAX, "no words of a key are").decode("utf-8", "replace")


def _write_new(path: str, data: bytes) -> None:
    if os.path.lexists(path):
        raise InvalidError(f"{path} exists", hint="name another file")
    try:
        write_atomic(path, data)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: str, error: OSError) -> FungiStorError:
    return InvalidError(f"{path} cannot be written: {error.strerror or error}")
