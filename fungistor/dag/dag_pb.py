"""DAG-PB: the protobuf of named links and opaque data in which UnixFS lives (spec: ipld.io/specs/codecs/dag-pb).

Written canonically (links first, hash, name and size always present), read strictly: both orders of the two
sections are legal, but fields inside a link come in order, none twice, and nothing unknown is skipped, so that no
two readers see different links in one block.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fungistor.dag import varint
from fungistor.dag.cid import CID
from fungistor.errors import CorruptError, InvalidError

_LINKS = 0x12
_DATA = 0x0A
_HASH = 0x0A
_NAME = 0x12
_TSIZE = 0x18
_LINK_FIELDS = {_HASH: "hash", _NAME: "name", _TSIZE: "size"}

Span = tuple[int, int]
"""First byte of a message in its block, and the byte behind it."""


@dataclass(frozen=True, slots=True)
class PBLink:
    """A link. `tsize` counts the bytes of all blocks below it, by the word of whoever made it. None: not written."""

    cid: CID
    name: bytes | None = b""
    tsize: int | None = 0


@dataclass(frozen=True, slots=True)
class PBNode:
    """A block's links and data. None: not written, which is not the same block as written empty."""

    links: tuple[PBLink, ...] = ()
    data: bytes | None = None


def encode_link(cid: bytes, name: bytes, tsize: int) -> bytes:
    """Return one link with its frame, ready to be joined into a block."""
    body = b"".join(
        (b"\x0a", varint.encode(len(cid)), cid, b"\x12", varint.encode(len(name)), name, b"\x18", varint.encode(tsize))
    )
    return b"\x12" + varint.encode(len(body)) + body


def link_bytes(cid_bytes: int, name_bytes: int, tsize: int) -> int:
    """Return the length of what `encode_link` gives, without building it."""
    size = varint.encoded_bytes
    body = 3 + size(cid_bytes) + cid_bytes + size(name_bytes) + name_bytes + size(tsize)
    return 1 + size(body) + body


def encode_node(links: Iterable[bytes], data: bytes) -> bytes:
    """Join links from `encode_link` and data into a block."""
    return b"".join((*links, b"\x0a", varint.encode(len(data)), data))


def encode(node: PBNode) -> bytes:
    """Return a node's canonical block; what is None is left out."""
    parts = []
    for link in node.links:
        cid = link.cid.encode()
        body = b"\x0a" + varint.encode(len(cid)) + cid
        if link.name is not None:
            body += b"\x12" + varint.encode(len(link.name)) + link.name
        if link.tsize is not None:
            body += b"\x18" + varint.encode(link.tsize)
        parts.append(b"\x12" + varint.encode(len(body)) + body)
    if node.data is not None:
        parts.append(b"\x0a" + varint.encode(len(node.data)) + node.data)
    return b"".join(parts)


def scan(block: bytes) -> tuple[list[Span], Span | None]:
    """Return where each link and the data lie, without reading the links.

    Raises:
        CorruptError: not a DAG-PB block.
    """
    links: list[Span] = []
    data: Span | None = None
    links_closed = False
    position, end = 0, len(block)
    while position < end:
        tag = block[position]
        if tag not in (_LINKS, _DATA):
            raise CorruptError(f"tag 0x{tag:02x} at byte {position} is neither links nor data of a dag-pb block")
        position += 1
        if position < end and block[position] < 0x80:
            length = block[position]
            position += 1
        else:
            length, position = varint.decode(block, position)
        stop = position + length
        if stop > end:
            raise CorruptError(f"a dag-pb field ends at byte {stop} of a block of {end}")
        if tag == _LINKS:
            if links_closed:
                raise CorruptError("a dag-pb block with links on both sides of its data")
            links.append((position, stop))
        elif data is None:
            data = (position, stop)
            links_closed = bool(links)
        else:
            raise CorruptError("a dag-pb block with two data fields")
        position = stop
    return links, data


def decode_link(block: bytes, span: Span) -> PBLink:
    """Read one link that `scan` found.

    Raises:
        CorruptError: fields out of order, twice, unknown or cut off; no hash, or one that is no CID.
    """
    start, end = span
    try:
        # The usual form, written by everyone, first; anything else is left to the careful reader below.
        if block[start] == _HASH and block[start + 1] < 0x80:
            at_name = start + 2 + block[start + 1]
            if block[at_name] == _NAME and block[at_name + 1] < 0x80:
                at_tsize = at_name + 2 + block[at_name + 1]
                if at_tsize < end and block[at_tsize] == _TSIZE:
                    tsize, stop = varint.decode(block, at_tsize + 1)
                    if stop == end:
                        cid = CID.decode(block[start + 2 : at_name])
                        return PBLink(cid, block[at_name + 2 : at_tsize], tsize)
        return _decode_unusual_link(block[start:end])
    except IndexError:
        return _decode_unusual_link(block[start:end])
    except InvalidError as error:
        raise CorruptError(f"a dag-pb link without a valid CID: {error}") from None


def _decode_unusual_link(body: bytes) -> PBLink:
    found: dict[int, bytes] = {}
    tsize: int | None = None
    position = last = 0
    while position < len(body):
        tag = body[position]
        if tag not in _LINK_FIELDS:
            raise CorruptError(f"tag 0x{tag:02x} is no field of a dag-pb link")
        if tag <= last:
            raise CorruptError(f"a dag-pb link with its {_LINK_FIELDS[tag]} twice or out of order")
        last = tag
        value, position = varint.decode(body, position + 1)
        if tag == _TSIZE:
            tsize = value
            continue
        if position + value > len(body):
            raise CorruptError(f"a dag-pb link whose {_LINK_FIELDS[tag]} is cut off")
        found[tag] = body[position : position + value]
        position += value
    if _HASH not in found:
        raise CorruptError("a dag-pb link without a hash")
    try:
        cid = CID.decode(found[_HASH])
    except InvalidError as error:
        raise CorruptError(f"a dag-pb link without a valid CID: {error}") from None
    return PBLink(cid, found.get(_NAME), tsize)


def decode(block: bytes) -> PBNode:
    """Read a whole block.

    Raises:
        CorruptError: not a DAG-PB block.
    """
    spans, data = scan(block)
    return PBNode(
        tuple([decode_link(block, span) for span in spans]), None if data is None else block[data[0] : data[1]]
    )
