"""Paths and directories: from a root and names to CIDs, in basic and sharded directories, through IPLD data too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fungistor.dag import dag_pb, hamt, ipld
from fungistor.dag.cid import CID, DAG_CBOR, DAG_JSON, DAG_PB
from fungistor.dag.reader import open_message
from fungistor.dag.source import BlockSource, announce, fetch
from fungistor.dag.unixfs import DataType, UnixFS
from fungistor.errors import CorruptError, InvalidError, NotFoundError


@dataclass(frozen=True, slots=True)
class DirEntry:
    """A name in a directory. `tsize` is what the directory says of the bytes of all blocks below: a hint, no fact."""

    name: bytes
    cid: CID
    tsize: int


@dataclass(frozen=True, slots=True)
class Resolution:
    """Where a path ends, and every block's CID from the root to there that a path segment led to."""

    cid: CID
    roots: tuple[CID, ...]


class InsideBlockError(InvalidError):
    """A path that ends at a value inside a dag-cbor or dag-json block, where no CID is."""


def _not_a_directory(cid: CID, message: UnixFS) -> InvalidError:
    return InvalidError(f"{cid} is a {message.type.name.lower()}, not a directory")


def _links(cid: CID, block: bytes, spans: Iterable[dag_pb.Span]) -> list[dag_pb.PBLink]:
    try:
        return [dag_pb.decode_link(block, span) for span in spans]
    except CorruptError as error:
        raise CorruptError(f"directory {cid}: {error}") from None


def lookup(source: BlockSource, directory: CID, name: bytes) -> CID | None:
    """Return the CID of a name in a directory, or None. Of equal names the first counts.

    Asks for one block a level of a sharded directory, and never for the entry itself.

    Raises:
        InvalidError: not a directory.
        CorruptError: malformed.
        NotFoundError, UnavailableError: from the source.
    """
    block = fetch(source, directory)
    message, spans = open_message(directory, block)
    if message.type is DataType.DIRECTORY:
        # A link is read only if the name stands somewhere in it: ten times as fast in a directory of thousands.
        candidates = (span for span in spans if block.find(name, *span) >= 0)
        matching = (link.cid for link in _links(directory, block, candidates) if (link.name or b"") == name)
        return next(matching, None)
    if message.type is not DataType.HAMT_SHARD:
        raise _not_a_directory(directory, message)
    hashed, level, cid = hamt.hash_name(name), 0, directory
    fanout: int | None = None
    while True:
        slots = _shard(cid, block, message, spans, fanout)
        fanout = message.fanout or 0
        bucket = hamt.bucket_at(hashed, level, fanout)
        slot = next((slot for slot in slots if slot.bucket == bucket), None)
        if slot is None:
            return None
        if slot.name is not None:
            return slot.link.cid if slot.name == name else None
        level, cid = level + 1, slot.link.cid
        if level == hamt.depth_max(fanout):
            raise CorruptError(f"sharded directory {directory} is deeper than its hash has bits for")
        block = fetch(source, cid)
        message, spans = _open_shard(cid, block)


def _open_shard(cid: CID, block: bytes) -> tuple[UnixFS, list[dag_pb.Span]]:
    try:
        return open_message(cid, block)
    except InvalidError as error:  # the link of a shard leads out of UnixFS: the directory is damaged
        raise CorruptError(f"part of a sharded directory is none: {error}") from None


def _shard(
    cid: CID, block: bytes, message: UnixFS, spans: Sequence[dag_pb.Span], fanout: int | None
) -> list[hamt.Slot]:
    slots = hamt.open_shard(message, _links(cid, block, spans), fanout)
    if fanout is not None and not slots:
        raise CorruptError(f"sub-shard {cid} of a directory holds nothing")
    return slots


def entries(
    source: BlockSource, directory: CID, *, repeated: bool = False, after: bytes | None = None
) -> Iterator[DirEntry]:
    """Yield a directory's entries: a basic one's in their stored order, a sharded one's as its blocks arrive.

    Equal names appear once, the first of them; with `repeated` all of a basic directory. Memory: one shard a level.
    With `after`, those behind that name in the same order; shards before it are not asked for. A name that is not
    there is no error: in a sharded directory its hash has a place all the same, in a basic one nothing is behind it.

    Raises:
        InvalidError: not a directory.
        CorruptError: malformed; a name that lies in a bucket where its hash does not.
        NotFoundError, UnavailableError: from the source.
    """
    block = fetch(source, directory)
    message, spans = open_message(directory, block)
    if message.type is DataType.DIRECTORY:
        found = _basic_entries(_links(directory, block, spans), repeated)
        return found if after is None else _behind(found, after)
    if message.type is not DataType.HAMT_SHARD:
        raise _not_a_directory(directory, message)
    slots = _shard(directory, block, message, spans, None)
    return _sharded_entries(source, directory, slots, message.fanout or 0, after)


def _behind(found: Iterator[DirEntry], after: bytes) -> Iterator[DirEntry]:
    for entry in found:
        if entry.name == after:
            break
    return found


def _basic_entries(links: Sequence[dag_pb.PBLink], repeated: bool) -> Iterator[DirEntry]:
    seen = set()
    for link in links:
        name = link.name or b""
        if repeated or name not in seen:
            seen.add(name)
            yield DirEntry(name, link.cid, link.tsize or 0)


def _sharded_entries(
    source: BlockSource, directory: CID, slots: list[hamt.Slot], fanout: int, after: bytes | None
) -> Iterator[DirEntry]:
    bits, depth_max = hamt.bits_of(fanout), hamt.depth_max(fanout)
    bound = None if after is None else hamt.hash_name(after)
    # Of each open shard: the slots still to come, and the bits of the path that leads to it.
    pending: list[tuple[Iterator[hamt.Slot], int]] = [(_announced(source, _not_before(slots, 0, 1, bits, bound)), 0)]
    while pending:
        shard, path = pending[-1]
        slot = next(shard, None)
        if slot is None:
            pending.pop()
            continue
        here = path << bits | slot.bucket
        if slot.name is not None:
            if hamt.hash_name(slot.name) >> (hamt.HASH_BITS - bits * len(pending)) != here:
                raise CorruptError(f"sharded directory {directory} has a name in a bucket where its hash does not lead")
            if bound is None or hamt.hash_name(slot.name) > bound:
                yield DirEntry(slot.name, slot.link.cid, slot.link.tsize or 0)
            continue
        if len(pending) == depth_max:
            raise CorruptError(f"sharded directory {directory} is deeper than its hash has bits for")
        cid = slot.link.cid
        block = fetch(source, cid)
        message, spans = _open_shard(cid, block)
        slots = _not_before(_shard(cid, block, message, spans, fanout), here, len(pending) + 1, bits, bound)
        pending.append((_announced(source, slots), here))


def _not_before(slots: list[hamt.Slot], path: int, level: int, bits: int, bound: int | None) -> list[hamt.Slot]:
    """Leave out the slots all of whose names hash below `bound`."""
    if bound is None:
        return slots
    edge = bound >> (hamt.HASH_BITS - bits * level)
    return [slot for slot in slots if path << bits | slot.bucket >= edge]


def _announced(source: BlockSource, slots: Sequence[hamt.Slot]) -> Iterator[hamt.Slot]:
    announce(source, [slot.link.cid for slot in slots if slot.name is None])
    return iter(slots)


def resolve(source: BlockSource, root: CID, segments: Sequence[str | bytes]) -> Resolution:
    """Follow path segments from a root. Symlinks are not followed; the last block itself is not asked for.

    Raises:
        NotFoundError: names the segment that is not there, or that would lie below a file; or from the source.
        InsideBlockError: the path ends inside a dag-cbor or dag-json block.
        CorruptError: a malformed block on the way.
        UnavailableError: from the source.
    """
    cid, roots = root, [root]
    names = [segment.encode() if isinstance(segment, str) else segment for segment in segments]
    position = 0
    while position < len(names):
        if cid.codec in (DAG_CBOR, DAG_JSON):
            cid, position = _through_ipld(source, cid, names, position)
        else:
            cid = _through_directory(source, cid, names[position])
            position += 1
        roots.append(cid)
    return Resolution(cid, tuple(roots))


def _missing(cid: CID, name: bytes, why: str = "") -> NotFoundError:
    return NotFoundError(f"no link named {name.decode('utf-8', 'backslashreplace')!r} under {cid}{why}")


def _through_directory(source: BlockSource, cid: CID, name: bytes) -> CID:
    if cid.codec != DAG_PB:
        raise _missing(cid, name, ", which has no links")
    try:
        found = lookup(source, cid, name)
    except InvalidError as error:
        raise _missing(cid, name, f": {error}") from None
    if found is None:
        raise _missing(cid, name)
    return found


def _through_ipld(source: BlockSource, cid: CID, names: Sequence[bytes], position: int) -> tuple[CID, int]:
    """Follow names inside one block to the next link, and return it with the position behind the last name used."""
    value = ipld.decode(cid.codec, fetch(source, cid))
    while position < len(names):
        if isinstance(value, CID):
            return value, position
        value = _child(cid, value, names[position])
        position += 1
    if isinstance(value, CID):
        return value, position
    inside = b"/".join(names).decode("utf-8", "backslashreplace")
    raise InsideBlockError(
        f"path {inside!r} ends inside block {cid}, not at a link",
        hint="ask for the block itself, and read the value from it",
    )


def _child(cid: CID, value: ipld.Value, name: bytes) -> ipld.Value:
    if isinstance(value, dict):
        try:
            return value[name.decode("utf-8")]
        except (KeyError, UnicodeDecodeError):
            raise _missing(cid, name) from None
    if isinstance(value, list):
        digits = name.decode("ascii", "replace")
        # Bounded before it is a number: a segment of a megabyte of digits must cost nothing.
        if digits.isdigit() and len(digits) < 10 and str(int(digits)) == digits and int(digits) < len(value):
            return value[int(digits)]
    raise _missing(cid, name)
