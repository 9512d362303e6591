"""name publish, rollback, remove, import, list, history: names of the network's own, and records it was given."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fungistor.dag.cid import CID
from fungistor.errors import CorruptError, InvalidError, NotFoundError
from fungistor.ids import OWN_TENANT, TenantNumber
from fungistor.names.key import name_text, parse_key
from fungistor.names.record import RECORD_BYTES_MAX, Record, parse
from fungistor.names.table import NameTable
from fungistor.node.cli.given_file import read_given
from fungistor.node.cli.output import Output
from fungistor.node.cli.rights import acting_of
from fungistor.node.home import Home
from fungistor.node.use import network_of
from fungistor.objects.access import Reader
from fungistor.objects.names import LIFETIME_S, TTL_S, Past, Published, check_name
from fungistor.objects.paths import parse_cid_path
from fungistor.objects.results import Json

if TYPE_CHECKING:
    from fungistor.node.network import Network

_HEAD = ("NAME", "SEQUENCE", "EXPIRES", "VALUE")
_COLUMNS = ("name", "sequence:right", "expires:time", "value")
_PAST_HEAD = ("SEQUENCE", "PUBLISHED", "BY", "VALUE")
_PAST_COLUMNS = ("sequence:right", "published:time", "issuer", "value")


@dataclass(frozen=True, slots=True)
class NameLine:
    """A record as it is listed."""

    record: Record
    imported_s: float | None = None
    alias: str | None = None

    def to_json(self) -> Json:
        """The keys of `--json`."""
        record = self.record
        value: Json = {
            "name": self.alias or name_text(record.name),
            "key": name_text(record.name),
            "own": self.alias is not None,
            "cid": _cid_of(record.value),
            "value": record.value,
            "sequence": record.sequence,
            "expires": record.expires_s,
            "ttl": record.ttl_s,
            "bytes": len(record.encoded),
        }
        return value if self.imported_s is None else value | {"imported": self.imported_s}


@dataclass(frozen=True, slots=True)
class PastLine:
    """A value that a name of the network's own had."""

    name: str
    past: Past
    is_newest: bool

    def to_json(self) -> Json:
        """The keys of `--json`."""
        past = self.past
        return {
            "name": self.name,
            "sequence": past.sequence,
            "cid": _cid_of(past.path),
            "value": past.path,
            "published": past.at,
            "issuer": past.issuer.hex() or None,
            "revision": past.revision,
            "current": self.is_newest,
        }


def load(arguments: argparse.Namespace, output: Output) -> int:
    """Import a record; a newer one of the same name that is held stays."""
    table = _table(arguments.home)
    key = _key(arguments.name)
    encoded = read_given(arguments.file, RECORD_BYTES_MAX, "no IPNS record is")
    try:
        record = parse(key, encoded)
    except CorruptError as error:
        raise InvalidError(f"{arguments.file}: {error.message}", hint="no byte of it was kept") from error
    is_new = table.put(record, time.time())
    line = NameLine(record).to_json() | {"new": is_new}
    output.fields(line, (("name", "name"), ("value", "value"), ("sequence", "sequence"), ("expires", "expires:time")))
    if not is_new and not output.as_json:
        output.note("this record was held already")
    return 0


def names(arguments: argparse.Namespace, output: Output) -> int:
    """List every name with the record that counts; where the network runs, as its catalog has them now."""
    home = Home.resolve(arguments.home)
    acting = acting_of(arguments)
    tenant = OWN_TENANT
    if acting.is_restricted or home.is_running():
        with network_of(home, acting) as network:
            network.names.follow()
            tenant = network.tenant
    table = _table(arguments.home, tenant)
    aliases = table.aliases()
    held = [record for record in table.all() if not acting.is_restricted or record.name in aliases]
    output.rows([NameLine(record, alias=aliases.get(record.name)) for record in held], _HEAD, _COLUMNS)
    return 0


def history(arguments: argparse.Namespace, output: Output) -> int:
    """List what a name meant, the newest first: its values, or of a key that was imported its records."""
    key = parse_key(arguments.name.removeprefix("/ipns/"))
    acting = acting_of(arguments)
    table = _table(arguments.home)
    alias = arguments.name if key is None else table.aliases().get(key)
    if alias is not None or acting.is_restricted:
        with network_of(Home.resolve(arguments.home), acting) as network:
            own = _table(arguments.home, network.tenant).aliases()
            alias = check_name(own.get(key, "") if key is not None else arguments.name)
            past = network.names.history(alias)
        lines = [PastLine(alias, value, number == 0) for number, value in enumerate(past)]
        output.rows(lines, _PAST_HEAD, _PAST_COLUMNS)
        return 0
    assert key is not None
    found = table.history(key)
    if not found:
        raise NotFoundError(f"no record of {name_text(key)} is held here", hint="`fungistor name import` takes one in")
    output.rows([NameLine(record, imported_s) for record, imported_s in found], _HEAD, _COLUMNS)
    return 0


def publish(arguments: argparse.Namespace, output: Output) -> int:
    """Let a name mean a CID, or a path below one."""
    check_name(arguments.name)
    path = parse_cid_path(arguments.cid_path)
    text = "/".join((f"/ipfs/{path.cid}", *path.segments))
    with network_of(Home.resolve(arguments.home), acting_of(arguments)) as network:
        if not arguments.allow_missing and not path.cid.is_identity:
            _check_held(network, path.cid)
        done = network.names.publish(
            arguments.name,
            text,
            ttl_s=TTL_S if arguments.ttl is None else arguments.ttl,
            lifetime_s=LIFETIME_S if arguments.lifetime is None else arguments.lifetime,
        )
    return _say(done, output)


def rollback(arguments: argparse.Namespace, output: Output) -> int:
    """Let a name mean again what it meant before."""
    with network_of(Home.resolve(arguments.home), acting_of(arguments)) as network:
        done = network.names.rollback(check_name(arguments.name), arguments.to)
    return _say(done, output)


def remove(arguments: argparse.Namespace, output: Output) -> int:
    """Forget a name."""
    with network_of(Home.resolve(arguments.home), acting_of(arguments)) as network:
        revision = network.names.remove(check_name(arguments.name))
    line: Json = {"name": arguments.name, "removed": True, "revision": revision}
    output.fields(line, (("removed", "name"), ("revision", "revision")))
    return 0


def _say(done: Published, output: Output) -> int:
    line: Json = {
        "name": done.name,
        "key": name_text(done.key),
        "cid": _cid_of(done.value.path),
        "value": done.value.path,
        "sequence": done.sequence,
        "revision": done.revision,
        "expires": done.record.expires_s,
        "ttl": done.value.ttl_s,
        "new": done.is_new,
        "changed": done.changed,
    }
    output.fields(
        line,
        (("name", "name"), ("key", "key"), ("value", "value"), ("sequence", "sequence"), ("expires", "expires:time")),
    )
    if not done.changed and not output.as_json:
        output.note("it meant this already")
    return 0


def _check_held(network: Network, cid: CID) -> None:
    try:
        network.content.locate(cid, Reader(network.tenant))
    except NotFoundError as error:
        raise NotFoundError(error.message, hint="publish it first, or say --allow-missing") from error


def _cid_of(path: str) -> str | None:
    _, namespace, root, *_ = (*path.split("/"), "", "")
    return root if namespace == "ipfs" else None


def _table(given: str | None, tenant: TenantNumber = OWN_TENANT) -> NameTable:
    home = Home.resolve(given)
    home.prepare()
    return NameTable(home.name_table, tenant)


def _key(text: str) -> CID:
    key = parse_key(text.removeprefix("/ipns/"))
    if key is None:
        raise InvalidError(f"{text[:80]!r} is no IPNS key", hint="write it as k51..., 12D3Koo... or Qm...")
    return key
