"""Snapshots of the catalog: written to the pool, committed, and only then the log before them is trimmed.

In order, so that a crash at any place loses nothing: a note in the home which id is begun; sealed pieces on the
members, flushed; the same pieces in a file of the home; the command; the trim; then older ones are deleted by the
notes. A note whose snapshot was never committed, or is no longer kept, names what to delete.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import SESSION_BYTES, Command
from fungistor.catalog.dump import Head
from fungistor.catalog.issuers import Scope
from fungistor.catalog.snapshots import SNAPSHOT_ID_BYTES, Snapshot
from fungistor.coding.compress import Compression, compress, decompress
from fungistor.coding.seal import open_sealed, seal
from fungistor.errors import CorruptError, FungiStorError
from fungistor.ids import SessionId, StripeId
from fungistor.keys.ring import derive
from fungistor.node.files import read_bounded, write_atomic
from fungistor.node.home import Home
from fungistor.objects.results import Json
from fungistor.pool.archive import Archive
from fungistor.pool.members import MemberSpec

TAIL_COMMANDS = 50_000
"""A snapshot is due when so many commands, some 20 MB, were committed since the last, and a quarter of the objects: so
the log stays below 256 MiB at a million objects, and all snapshots write a few times what the catalog holds."""

SCOPES = Scope.POOL | Scope.ADMIN
NOTES_BYTES_MAX = 1 << 20
PIECE_BYTES_MAX = 4 << 20
_LENGTH_BYTES = 4
_CONTEXT = b"fungistor snapshot 0"

Members = Callable[[], Sequence[MemberSpec]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that was committed. `members`: on how many it is durable; `trimmed`: entries that the log gave up."""

    applied: int
    chunks: int
    size: int
    k: int
    shards: int
    members: int
    trimmed: int

    def to_json(self) -> Json:
        """The keys of `--json`."""
        return {key: getattr(self, key) for key in self.__slots__}


class Snapshots:
    """A home's way to write snapshots and to read those of any node."""

    def __init__(self, home: Home, network_key: bytes, members: Members) -> None:
        self._home = home
        self._network_key = network_key
        self._members = members

    # --- writing

    def is_due(self, catalog: Catalog) -> bool:
        """Whether the log is long enough for another."""
        return catalog.may(SCOPES) and catalog.tail() >= max(TAIL_COMMANDS, catalog.objects // 4)

    def take(self, catalog: Catalog) -> Taken | None:
        """Write a snapshot of what this node has applied, and trim the log; None where nothing came since the last.

        Raises: UnavailableError: too few members take it, and nothing has changed; the errors of `Catalog.commit`.
        """
        catalog.catch_up()
        self._clean(catalog)
        if catalog.tail() <= 1:  # the last one's own command
            return None
        identity = secrets.token_bytes(SNAPSHOT_ID_BYTES)
        self._note([*self._notes(), identity.hex()])
        with Archive(self._members()) as archive, catalog.dump() as (head, chunks):
            count, size = self._write(archive, identity, chunks)
            members = archive.flush()
            shape = archive.shape
        snapshot = Snapshot(identity, head.position, head.applied, head.digest, count, shape.k, shape.shards, size)
        self._check(snapshot, head)
        catalog.commit(Command(SessionId(os.urandom(SESSION_BYTES)), 0, snapshot))
        before = catalog.first_entry()
        catalog.trim(snapshot)
        taken = Taken(head.applied, count, size, shape.k, shape.shards, members, catalog.first_entry() - before)
        self._clean(catalog)
        return taken

    def _write(self, archive: Archive, identity: bytes, chunks: Iterator[bytes]) -> tuple[int, int]:
        count = size = 0
        aside = f"{self._home.snapshot}.{os.getpid()}"
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(_CONTEXT + identity)
                for count, chunk in enumerate(chunks, 1):
                    piece = self._seal(identity, count - 1, chunk)
                    archive.put(self._piece_id(identity, count - 1), piece)
                    file.write(len(piece).to_bytes(_LENGTH_BYTES, "big") + piece)
                    size += len(piece)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, self._home.snapshot)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
        return count, size

    def _check(self, snapshot: Snapshot, head: Head) -> None:
        """Read every piece back from the members before anything relies on it."""
        with Archive(self._members()) as archive, contextlib.closing(self._from_members(archive, snapshot)) as chunks:
            if sum(1 for _ in chunks) != snapshot.chunks or head.applied != snapshot.applied:
                raise CorruptError("the members do not give back the snapshot that they took")

    def _clean(self, catalog: Catalog) -> None:
        """Delete the pieces of snapshots that this home wrote and nobody needs any more."""
        kept = {snapshot.id.hex() for snapshot in catalog.snapshots()}
        notes = self._notes()
        gone = [noted for noted in notes if noted not in kept]
        if not gone:
            return
        with Archive(self._members()) as archive:
            for noted in gone:
                identity, number = bytes.fromhex(noted), 0
                while archive.delete(self._piece_id(identity, number), archive.shape.shards):
                    number += 1
            if archive.failed:
                return  # deletes for absent members wait
        self._note([noted for noted in notes if noted in kept])

    def note(self, ids: Sequence[bytes]) -> None:
        """Snapshots that another home wrote are this one's to delete when nobody needs them any more."""
        self._note(list(dict.fromkeys([*self._notes(), *(identity.hex() for identity in ids)])))

    def _notes(self) -> list[str]:
        try:
            content = read_bounded(self._home.snapshot_notes, NOTES_BYTES_MAX)
        except FileNotFoundError:
            return []
        try:
            return [
                str(noted) for noted in json.loads(content or b"[]") if len(bytes.fromhex(noted)) == SNAPSHOT_ID_BYTES
            ]
        except (ValueError, TypeError):
            return []  # what it named stays on the members, and harms nothing

    def _note(self, ids: list[str]) -> None:
        write_atomic(self._home.snapshot_notes, json.dumps(ids).encode() + b"\n")

    # --- reading

    def chunks(self, snapshot: Snapshot) -> Generator[bytes]:
        """A snapshot's chunks, from the home where they lie there, else from the members.

        Raises: UnavailableError: too few members answer; CorruptError.
        """
        if self._is_here(snapshot):
            yield from self._from_home(snapshot)
            return
        with Archive(self._members()) as archive:
            yield from self._from_members(archive, snapshot)

    def _from_members(self, archive: Archive, snapshot: Snapshot) -> Generator[bytes]:
        for number in range(snapshot.chunks):
            piece = archive.get(self._piece_id(snapshot.id, number), snapshot.k, snapshot.shards)
            yield self._open(snapshot.id, number, piece)

    def _is_here(self, snapshot: Snapshot) -> bool:
        """Whether the home's file is of this snapshot and every piece of it opens."""
        try:
            return sum(1 for _ in self._from_home(snapshot)) == snapshot.chunks
        except (OSError, FungiStorError):
            return False

    def _from_home(self, snapshot: Snapshot) -> Generator[bytes]:
        with open(self._home.snapshot, "rb") as file:
            if file.read(len(_CONTEXT) + SNAPSHOT_ID_BYTES) != _CONTEXT + snapshot.id:
                raise CorruptError("the home's snapshot is another one")
            for number in range(snapshot.chunks):
                length = int.from_bytes(file.read(_LENGTH_BYTES), "big")
                if length > PIECE_BYTES_MAX:
                    raise CorruptError("the home's snapshot is damaged")
                yield self._open(snapshot.id, number, file.read(length))

    # --- sealing

    def _seal(self, identity: bytes, number: int, chunk: bytes) -> bytes:
        compression, packed = compress(chunk)
        head = bytes([int(compression)]) + len(chunk).to_bytes(_LENGTH_BYTES, "big")
        return head + seal(self._key(identity, number), packed, _CONTEXT + head)

    def _open(self, identity: bytes, number: int, piece: bytes) -> bytes:
        head = piece[: 1 + _LENGTH_BYTES]
        length = int.from_bytes(head[1:], "big")
        if len(head) != 1 + _LENGTH_BYTES or length > PIECE_BYTES_MAX:
            raise CorruptError("a piece of the catalog's snapshot is damaged")
        packed = open_sealed(self._key(identity, number), piece[len(head) :], _CONTEXT + head)
        return decompress(Compression(head[0]), packed, length)

    def _key(self, identity: bytes, number: int) -> bytes:
        return derive(derive(self._network_key, "catalog snapshot", identity), "snapshot piece", _numbered(number))

    def _piece_id(self, identity: bytes, number: int) -> StripeId:
        return StripeId(
            derive(derive(self._network_key, "catalog snapshot", identity), "snapshot place", _numbered(number))
        )


def _numbered(number: int) -> bytes:
    return number.to_bytes(32, "big")
