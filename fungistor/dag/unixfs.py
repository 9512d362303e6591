"""The UnixFS message inside a dag-pb block's data (spec: specs.ipfs.tech/unixfs): what the block is in a file system.

Written in field order without what is empty; read as protobuf is: any order, unknown fields skipped, the last one
counts. What decides how bytes are found (sizes, fanout) is checked by whoever reads files and directories.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from fungistor.dag import varint
from fungistor.errors import CorruptError, InvalidError

Bytes = bytes | memoryview
"""Data of a leaf is handed through as a view of its block, so that reading a file copies nothing."""

MODE_MASK = 0o7777
_NANOS_MAX = 999_999_999
_INT64_MAX = (1 << 63) - 1


class DataType(IntEnum):
    """What a block is. RAW is an old name of a file's leaf, METADATA was never used."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    HAMT_SHARD = 5


@dataclass(frozen=True, slots=True, order=True)
class Mtime:
    """A time of modification: seconds since 1970, negative before, and nanoseconds 0..999999999."""

    seconds: int
    nanos: int = 0

    def __post_init__(self) -> None:
        """Refuse what the format cannot hold."""
        if not 0 <= self.nanos <= _NANOS_MAX:
            raise InvalidError(f"{self.nanos} nanoseconds of a modification time, 0 to {_NANOS_MAX} exist")
        if not -_INT64_MAX - 1 <= self.seconds <= _INT64_MAX:
            raise InvalidError("a modification time of more than 64 bits")


@dataclass(frozen=True, slots=True)
class UnixFS:
    """One message. `file_bytes` and `block_sizes` count bytes of the file, never of blocks. None: not written."""

    type: DataType
    data: Bytes = b""
    file_bytes: int | None = None
    block_sizes: tuple[int, ...] = ()
    hash_type: int | None = None
    fanout: int | None = None
    mode: int | None = None
    mtime: Mtime | None = None


def encode(message: UnixFS) -> bytes:
    """Return the message as Kubo writes it, bit for bit. A mode of 0 is not written."""
    parts = [b"\x08", varint.encode(message.type)]
    if message.data:
        parts += (b"\x12", varint.encode(len(message.data)), bytes(message.data))
    if message.file_bytes is not None:
        parts += (b"\x18", varint.encode(message.file_bytes))
    for size in message.block_sizes:
        parts += (b"\x20", varint.encode(size))
    if message.hash_type is not None:
        parts += (b"\x28", varint.encode(message.hash_type))
    if message.fanout is not None:
        parts += (b"\x30", varint.encode(message.fanout))
    parts.append(encode_stat(message.mode, message.mtime))
    return b"".join(parts)


def encode_stat(mode: int | None, mtime: Mtime | None) -> bytes:
    """Return the last two fields, mode and modification time. A mode of 0 is not written, as in Kubo."""
    out = b""
    if mode:
        out = b"\x38" + varint.encode(mode)
    if mtime is not None:
        body = b"\x08" + varint.encode(mtime.seconds & varint.UINT64_MAX)
        if mtime.nanos:
            body += b"\x15" + mtime.nanos.to_bytes(4, "little")
        out += b"\x42" + varint.encode(len(body)) + body
    return out


def encode_file(data: Bytes, mode: int | None = None, mtime: Mtime | None = None) -> bytes:
    """Return a whole dag-pb block of a file's leaf: one join, since the data may be a MiB."""
    head = b"\x08\x02"
    tail = b"\x18" + varint.encode(len(data)) + encode_stat(mode, mtime)
    if len(data):
        head += b"\x12" + varint.encode(len(data))
    message_bytes = len(head) + len(data) + len(tail)
    return b"".join((b"\x0a", varint.encode(message_bytes), head, data, tail))


def decode(buffer: Bytes) -> UnixFS:
    """Read a message; `data` of it is a slice of the buffer.

    Raises:
        CorruptError: not a UnixFS message.
    """
    numbers: dict[int, int] = {}
    sizes: list[int] = []
    data: Bytes = b""
    mtime: Mtime | None = None
    position, end = 0, len(buffer)
    while position < end:
        tag = buffer[position]
        if tag == 0x20:  # a block size: by far the most frequent field
            value, position = varint.decode(buffer, position + 1)
            sizes.append(value)
            continue
        tag, position = varint.decode(buffer, position)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = varint.decode(buffer, position)
            _refuse_wire(field, wire, field in (2, 8))
            numbers[field] = value
            if field == 4:
                sizes.append(value)
        else:
            start, position = _field_span(buffer, position, wire)
            _refuse_wire(field, wire, field in (1, 3, 5, 6, 7) or (field in (2, 4, 8) and wire != 2))
            if field == 2:
                data = buffer[start:position]
            elif field == 4:
                sizes += _decode_packed(buffer[start:position])
            elif field == 8:
                mtime = _decode_mtime(bytes(buffer[start:position]))
    return _message(numbers, data, sizes, mtime)


def _refuse_wire(field: int, wire: int, wrong: bool) -> None:
    if wrong:
        raise CorruptError(f"UnixFS field {field} has wire type {wire}")
    if not 0 < field < 1 << 29:
        raise CorruptError(f"field number {field} does not exist in protobuf")


def _message(numbers: dict[int, int], data: Bytes, sizes: list[int], mtime: Mtime | None) -> UnixFS:
    try:
        kind = DataType(numbers[1])
    except (KeyError, ValueError):
        raise CorruptError(f"a UnixFS message of no known type ({numbers.get(1, 'none')})") from None
    mode = numbers.get(7)
    return UnixFS(
        type=kind,
        data=data,
        file_bytes=numbers.get(3),
        block_sizes=tuple(sizes),
        hash_type=numbers.get(5),
        fanout=numbers.get(6),
        mode=None if mode is None else mode & 0xFFFF_FFFF,
        mtime=mtime,
    )


def _field_span(buffer: Bytes, position: int, wire: int) -> tuple[int, int]:
    if wire == 2:
        length, position = varint.decode(buffer, position)
    elif wire in (1, 5):
        length = 8 if wire == 1 else 4
    else:
        raise CorruptError(f"protobuf wire type {wire} in a UnixFS message")
    if position + length > len(buffer):
        raise CorruptError(f"a UnixFS field ends at byte {position + length} of {len(buffer)}")
    return position, position + length


def _decode_packed(buffer: Bytes) -> list[int]:
    values, position = [], 0
    while position < len(buffer):
        value, position = varint.decode(buffer, position)
        values.append(value)
    return values


def _decode_mtime(body: bytes) -> Mtime:
    seconds: int | None = None
    nanos = 0
    position = 0
    while position < len(body):
        tag, position = varint.decode(body, position)
        if tag == 0x08:
            value, position = varint.decode(body, position)
            seconds = value - (1 << 64) if value > _INT64_MAX else value
        elif tag & 7 == 0:
            _, position = varint.decode(body, position)
        else:
            start, position = _field_span(body, position, tag & 7)
            if tag == 0x15:
                nanos = int.from_bytes(body[start:position], "little")
                # The specification calls the whole block malformed, a written zero included.
                if not 1 <= nanos <= _NANOS_MAX:
                    raise CorruptError(f"{nanos} nanoseconds in a UnixFS modification time")
    if seconds is None:
        raise CorruptError("a UnixFS modification time without seconds")
    return Mtime(seconds, nanos)
