"""CARv1, the format in which DAGs travel as files (spec: ipld.io/specs/transport/car/carv1): bytes in, sections out.

A header names the roots; sections follow, each a CID and a block. Nothing here reads files, hashes, or follows links:
whoever takes a section checks it. What cannot be a section is refused before its bytes are gathered, so a decoder
holds one section at most, and the bytes of the last call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fungistor.dag import ipld, varint
from fungistor.dag.cid import CID, DAG_CBOR
from fungistor.dag.multihash import DIGEST_BYTES_MAX, SHA2_256_PREFIX
from fungistor.errors import CorruptError, InvalidError
from fungistor.limits import BLOCK_BYTES_MAX, MIB

HEADER_BYTES_MAX = MIB
"""Some 25,000 roots: more than anyone names, and no room for a bomb."""

CID_BYTES_MAX = 4 * 9 + DIGEST_BYTES_MAX
"""Version, codec, hash code and length as the longest numbers there are, and a digest."""

SECTION_BYTES_MAX = CID_BYTES_MAX + BLOCK_BYTES_MAX
_VARINT_BYTES_MAX = 9


@dataclass(frozen=True, slots=True)
class Section:
    """One block of a CAR, unchecked. `offset`: where its bytes begin in the file."""

    cid: CID
    data: bytes
    offset: int


def encode_header(roots: Sequence[CID]) -> bytes:
    """Return the first bytes of a CAR with these roots."""
    links = []
    for root in roots:
        cid = b"\0" + root.encode()
        links.append(b"\xd8\x2a" + _cbor_head(0x40, len(cid)) + cid)
    body = b"\xa2\x65roots" + _cbor_head(0x80, len(links)) + b"".join(links) + b"\x67version\x01"
    return varint.encode(len(body)) + body


def _cbor_head(major: int, count: int) -> bytes:
    if count < 24:
        return bytes((major | count,))
    width, info = (1, 24) if count < 1 << 8 else (2, 25) if count < 1 << 16 else (4, 26)
    return bytes((major | info,)) + count.to_bytes(width, "big")


def section_head(cid: CID, block_bytes: int) -> bytes:
    """Return what stands before a block: it follows uncopied."""
    binary = cid.encode()
    return varint.encode(len(binary) + block_bytes) + binary


class CarDecoder:
    """Takes a CAR in pieces of any size. `roots` is None until the header is complete."""

    def __init__(self) -> None:
        self.roots: tuple[CID, ...] | None = None
        self._buffer = bytearray()
        self._start = 0

    @property
    def position(self) -> int:
        """Bytes of the file that are taken apart so far."""
        return self._start

    def feed(self, data: bytes | memoryview) -> list[Section]:
        """Take the next bytes of the file, and return the sections that they complete.

        Raises:
            InvalidError: what has come is no CARv1.
        """
        self._buffer += data
        sections: list[Section] = []
        position = 0
        while (bounds := self._bounds(position)) is not None:
            start, end = bounds
            if self.roots is None:
                self.roots = _decode_header(bytes(self._buffer[start:end]))
            else:
                sections.append(self._section(start, end))
            position = end
        del self._buffer[:position]
        self._start += position
        return sections

    def finish(self) -> None:
        """Say that the file has ended.

        Raises:
            InvalidError: in the middle of a section, or before the header was whole.
        """
        if self._buffer:
            what = "its header" if self.roots is None else f"the section at byte {self._start}"
            raise InvalidError(
                f"the CAR ends at byte {self._start + len(self._buffer)}, in the middle of {what}",
                hint="the file is cut off: fetch or export it again",
            )
        if self.roots is None:
            raise InvalidError("the CAR is empty: it has no header")

    def _bounds(self, position: int) -> tuple[int, int] | None:
        """Where the next section's body is in the buffer; None until it is there whole."""
        length, start = 0, position
        for shift in range(0, 7 * _VARINT_BYTES_MAX, 7):
            if start == len(self._buffer):
                return None
            byte = self._buffer[start]
            length |= (byte & 0x7F) << shift
            start += 1
            if byte < 0x80:
                break
        if self._buffer[start - 1] >= 0x80 or (self._buffer[start - 1] == 0 and start > position + 1):
            raise InvalidError(f"no length of a section at byte {self._start + position}: {self._not_a_car()}")
        self._check_length(length, self._start + position)
        end = start + length
        return (start, end) if end <= len(self._buffer) else None

    def _check_length(self, length: int, at: int) -> None:
        if self.roots is None:
            if not 0 < length <= HEADER_BYTES_MAX:
                raise InvalidError(
                    f"a header of {length} bytes, 1 to {HEADER_BYTES_MAX} are possible: {self._not_a_car()}"
                )
        elif length == 0:
            raise InvalidError(f"the section at byte {at} has 0 bytes: every section begins with a CID")
        elif length > SECTION_BYTES_MAX:
            raise InvalidError(
                f"the section at byte {at} announces {length} bytes; a block has at most {BLOCK_BYTES_MAX}"
            )

    def _not_a_car(self) -> str:
        return "this is no CAR file" if self.roots is None else "the CAR is damaged"

    def _section(self, start: int, end: int) -> Section:
        at = self._start + start
        try:
            cid_end = _cid_end(self._buffer, start, end)
            cid = CID.decode(bytes(self._buffer[start:cid_end]))
        except InvalidError as error:
            raise InvalidError(f"the section at byte {at} does not begin with a CID: {error}") from None
        if end - cid_end > BLOCK_BYTES_MAX:
            raise InvalidError(f"block {cid} has {end - cid_end} bytes, at most {BLOCK_BYTES_MAX} are possible")
        with memoryview(self._buffer) as view:
            return Section(cid, bytes(view[cid_end:end]), self._start + cid_end)


def _cid_end(buffer: bytearray, start: int, end: int) -> int:
    if buffer.startswith(SHA2_256_PREFIX, start):
        position = start + 34
    elif buffer.startswith(SHA2_256_PREFIX, start + 2) and buffer[start] == 1 and buffer[start + 1] < 0x80:
        position = start + 36
    else:
        head = bytes(buffer[start : min(end, start + CID_BYTES_MAX)])
        position = 0
        for _ in range(3):
            _, position = varint.decode_strict(head, position)
        digest_bytes, position = varint.decode_strict(head, position)
        if digest_bytes > DIGEST_BYTES_MAX:
            raise InvalidError(f"a digest of {digest_bytes} bytes, at most {DIGEST_BYTES_MAX} are accepted")
        position += start + digest_bytes
    if position > end:
        raise InvalidError(f"it has {end - start} bytes, its CID would need {position - start}")
    return position


def _decode_header(body: bytes) -> tuple[CID, ...]:
    try:
        header = ipld.decode(DAG_CBOR, body)
    except CorruptError as error:
        raise InvalidError(f"this is no CAR file: its header cannot be read: {error}") from None
    if not isinstance(header, dict) or type(version := header.get("version")) is not int:
        raise InvalidError("this is no CAR file: its header is no map with a version")
    if version != 1:
        raise InvalidError(
            f"a CAR of version {version}; only version 1 is read",
            hint="take the version 1 out of it: `car get-dag` of go-car does, and `ipfs dag export` writes version 1",
        )
    roots = header.get("roots")
    if not isinstance(roots, list) or not all(isinstance(root, CID) for root in roots):
        raise InvalidError("the header of the CAR has no list of roots")
    if not roots:
        raise InvalidError("the CAR names no roots, so nothing in it has a name", hint="export it with a root")
    return tuple(root for root in roots if isinstance(root, CID))
