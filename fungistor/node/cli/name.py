"""name import, list, history: the IPNS records that this home was given."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass

from fungistor.dag.cid import CID
from fungistor.errors import CorruptError, InvalidError, NotFoundError
from fungistor.names.key import name_text, parse_key
from fungistor.names.record import RECORD_BYTES_MAX, Record, parse
from fungistor.names.table import NameTable
from fungistor.node.cli.options import not_yet
from fungistor.node.cli.output import Output
from fungistor.node.files import read_bounded
from fungistor.node.home import Home
from fungistor.objects.results import Json

_HEAD = ("NAME", "SEQUENCE", "EXPIRES", "VALUE")
_COLUMNS = ("name", "sequence:right", "expires:time", "value")


@dataclass(frozen=True, slots=True)
class NameLine:
    """A record as it is listed."""

    record: Record
    imported_s: float | None = None

    def to_json(self) -> Json:
        """The keys of `--json`."""
        record = self.record
        value: Json = {
            "name": name_text(record.name),
            "value": record.value,
            "sequence": record.sequence,
            "expires": record.expires_s,
            "ttl": record.ttl_s,
            "bytes": len(record.encoded),
        }
        return value if self.imported_s is None else value | {"imported": self.imported_s}


def load(arguments: argparse.Namespace, output: Output) -> int:
    """Import a record; a newer one of the same name that is held stays."""
    table = _table(arguments.home)
    key = _key(arguments.name)
    encoded = _read(arguments.file)
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
    """List every name with the record that counts."""
    output.rows([NameLine(record) for record in _table(arguments.home).all()], _HEAD, _COLUMNS)
    return 0


def history(arguments: argparse.Namespace, output: Output) -> int:
    """List the records of one name, the newest first."""
    key = _key(arguments.name)
    found = _table(arguments.home).history(key)
    if not found:
        raise NotFoundError(f"no record of {name_text(key)} is held here", hint="`fungistor name import` takes one in")
    output.rows([NameLine(record, imported_s) for record, imported_s in found], _HEAD, _COLUMNS)
    return 0


def publish(arguments: argparse.Namespace, output: Output) -> int:  # noqa: ARG001
    raise not_yet("`fungistor name publish`")


def _table(given: str | None) -> NameTable:
    home = Home.resolve(given)
    home.prepare()
    return NameTable(home.name_table)


def _key(text: str) -> CID:
    key = parse_key(text.removeprefix("/ipns/"))
    if key is None:
        raise InvalidError(f"{text[:80]!r} is no IPNS key", hint="write it as k51..., 12D3Koo... or Qm...")
    return key


def _read(path: str) -> bytes:
    if path == "-":
        content: bytes | None = sys.stdin.buffer.read(RECORD_BYTES_MAX + 1)
    else:
        try:
            content = read_bounded(path, RECORD_BYTES_MAX)
        except OSError as error:
            raise InvalidError(f"{path}: {(error.strerror or os.strerror(error.errno or 0)).lower()}") from error
    if content is None or len(content) > RECORD_BYTES_MAX:
        raise InvalidError(f"{path} is longer than {RECORD_BYTES_MAX} bytes: no IPNS record is")
    return content
