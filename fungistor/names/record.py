"""IPNS records: a content path, signed under the key that is the name.

Only what stands in the signed DAG-CBOR document (`data`, signature version 2) is believed. Records for old readers
repeat it in protobuf fields (version 1); those must say the same, and their own signature counts for nothing.
Specification: https://specs.ipfs.tech/ipns/ipns-record/. Bytes: docs/formats/ipns-record.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from fungistor.dag.cid import CID, DAG_CBOR
from fungistor.dag.ipld import decode
from fungistor.dag.multihash import IDENTITY, split
from fungistor.errors import CorruptError, InvalidError
from fungistor.names.protobuf import Fields, encode_bytes, encode_number
from fungistor.names.public_key import PublicKey

RECORD_BYTES_MAX = 10 * 1024
"""The specification's bound."""

VALUE_BYTES_MAX = 2048
NS = 1_000_000_000
_UINT64_MAX = (1 << 64) - 1

_VALUE, _SIGNATURE_V1, _VALIDITY_TYPE, _VALIDITY, _SEQUENCE, _TTL, _PUBLIC_KEY, _SIGNATURE_V2, _DATA = range(1, 10)
_END_OF_LIFE = 0
_PREFIX_V2 = b"ipns-signature:"


@dataclass(frozen=True, slots=True)
class Record:
    """A verified record. `ttl_s` None: it does not say for how long it may be cached."""

    name: CID
    value: str
    sequence: int
    expires_s: float
    ttl_s: float | None
    encoded: bytes
    has_v1: bool

    def is_newer_than(self, other: Record) -> bool:
        """Tell which of two valid records of a name holds: the higher sequence, then the later end."""
        return (self.sequence, self.expires_s) > (other.sequence, other.expires_s)


def parse(name: CID, encoded: bytes) -> Record:
    """Read a record and verify it against its name. Whether it has expired is the caller's question.

    Raises: CorruptError, saying what is wrong.
    """
    if len(encoded) > RECORD_BYTES_MAX:
        raise CorruptError(f"a record of {len(encoded)} bytes, at most {RECORD_BYTES_MAX} are allowed")
    fields = Fields.read(encoded)
    data, signature = fields.bytes(_DATA), fields.bytes(_SIGNATURE_V2)
    if not data or not signature:
        raise CorruptError("the record has no signature of version 2; those of version 1 alone prove nothing")
    key_of(name, fields.bytes(_PUBLIC_KEY)).verify(signature, _PREFIX_V2 + data)
    document = decode(DAG_CBOR, data)
    if not isinstance(document, dict):
        raise CorruptError("the record's signed data is no map")
    value, validity = document.get("Value"), document.get("Validity")
    kind, sequence, ttl = (document.get(key, 0) for key in ("ValidityType", "Sequence", "TTL"))
    if not isinstance(value, bytes) or not isinstance(validity, bytes):
        raise CorruptError("the record's signed data lacks Value or Validity")
    if not _is_uint64(sequence) or not _is_uint64(ttl) or kind != _END_OF_LIFE or isinstance(kind, bool):
        raise CorruptError("the record's signed Sequence, TTL or ValidityType is none that is known")
    assert isinstance(sequence, int)
    assert isinstance(ttl, int)
    has_v1 = _check_v1(fields, value, validity, sequence, ttl)
    return Record(
        name=name,
        value=_content_path(value),
        sequence=sequence,
        expires_s=parse_time(validity),
        ttl_s=ttl / NS if ttl else None,
        encoded=encoded,
        has_v1=has_v1,
    )


def key_of(name: CID, embedded: bytes | None) -> PublicKey:
    """Return the key that a name stands for: from the record, else from the name itself.

    Raises: CorruptError where neither has it, or the record's is another's.
    """
    code, digest = split(name.multihash)
    if embedded:
        key = PublicKey.decode(embedded)
        if key.name.multihash != name.multihash:
            raise CorruptError("the record holds another key than that of its name")
        return key
    if code != IDENTITY:
        raise CorruptError("the record lacks the public key that its name is the hash of")
    return PublicKey.decode(digest)


def create(
    value: str,
    sequence: int,
    expires_s: int,
    ttl_s: int,
    key: PublicKey,
    sign: Callable[[bytes], bytes],
    *,
    with_v1: bool = True,
) -> bytes:
    """Sign a record. `with_v1` repeats everything for readers from before version 2, as Kubo does.

    Raises: InvalidError where the path is too long.
    """
    path = value.encode()
    if not path.startswith((b"/ipfs/", b"/ipns/")) or len(path) > VALUE_BYTES_MAX:
        raise InvalidError(f"{value[:60]!r} is no content path of at most {VALUE_BYTES_MAX} bytes")
    validity = format_time(expires_s).encode()
    ttl = ttl_s * NS
    data = _document(path, validity, sequence, ttl)
    legacy = b""
    if with_v1:
        legacy = (
            encode_bytes(_VALUE, path)
            + encode_bytes(_SIGNATURE_V1, sign(path + validity + b"EOL"))
            + encode_number(_VALIDITY_TYPE, _END_OF_LIFE)
            + encode_bytes(_VALIDITY, validity)
            + encode_number(_SEQUENCE, sequence)
            + encode_number(_TTL, ttl)
        )
    # A key that is in the name already is not repeated.
    embedded = b"" if key.name.is_identity else encode_bytes(_PUBLIC_KEY, key.encode())
    signed = encode_bytes(_SIGNATURE_V2, sign(_PREFIX_V2 + data)) + encode_bytes(_DATA, data)
    return legacy + embedded + signed


def parse_time(validity: bytes) -> float:
    """Read an RFC 3339 time with up to nine digits of a second.

    Raises: CorruptError.
    """
    text = validity.decode("ascii", "replace")
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise CorruptError(f"the record's end {text[:40]!r} is no time of RFC 3339") from None
    if when.tzinfo is None:
        raise CorruptError(f"the record's end {text[:40]!r} names no time zone")
    return when.timestamp()


def format_time(unix_s: int) -> str:
    """Write a time as Kubo does."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")


def _check_v1(fields: Fields, value: bytes, validity: bytes, sequence: int, ttl: int) -> bool:
    """Tell whether the record repeats itself for old readers; then it must do so truly (IPIP-428)."""
    if fields.bytes(_SIGNATURE_V1) is None and fields.bytes(_VALUE) is None:
        return False
    repeated = (
        ("Value", fields.bytes(_VALUE) or b"", value),
        ("Validity", fields.bytes(_VALIDITY) or b"", validity),
        ("ValidityType", fields.number(_VALIDITY_TYPE) or 0, _END_OF_LIFE),
        ("Sequence", fields.number(_SEQUENCE) or 0, sequence),
        ("TTL", fields.number(_TTL) or 0, ttl),
    )
    for what, legacy, signed in repeated:
        if legacy != signed:
            raise CorruptError(f"the record says one {what} to old readers and another to new ones")
    return True


def _content_path(value: bytes) -> str:
    if len(value) > VALUE_BYTES_MAX:
        raise CorruptError(f"the record's path has {len(value)} bytes, at most {VALUE_BYTES_MAX} are read")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        # The oldest records hold a bare CID's bytes.
        try:
            return f"/ipfs/{CID.decode(value)}"
        except InvalidError:
            raise CorruptError("the record's value is neither a path nor a CID") from None
    return text


def _is_uint64(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _UINT64_MAX


def _document(value: bytes, validity: bytes, sequence: int, ttl: int) -> bytes:
    """Encode the signed map as DAG-CBOR: keys shortest first, then by their bytes."""
    return b"\xa5" + b"".join(
        (
            _cbor(3, 3) + b"TTL" + _cbor(0, ttl),
            _cbor(3, 5) + b"Value" + _cbor(2, len(value)) + value,
            _cbor(3, 8) + b"Sequence" + _cbor(0, sequence),
            _cbor(3, 8) + b"Validity" + _cbor(2, len(validity)) + validity,
            _cbor(3, 12) + b"ValidityType" + _cbor(0, _END_OF_LIFE),
        )
    )


def _cbor(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    for marker, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * width):
            return bytes((major << 5 | marker,)) + argument.to_bytes(width, "big")
    raise InvalidError(f"{argument} does not fit 64 bits")
