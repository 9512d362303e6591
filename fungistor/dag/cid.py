"""Content identifiers: one small value, cheap enough to make for every link of every block.

The `multiformats` library takes 200 us a CID, this class below 1 us; the library stays as an oracle in the tests.
Blocks are keyed by multihash, since CIDv0 and CIDv1 of one block differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.dag import multibase, varint
from fungistor.dag.multihash import IDENTITY, SHA2_256_PREFIX, matches, sha256_multihash, split
from fungistor.errors import BlockMismatchError, InvalidError

__all__ = ["CBOR", "CID", "DAG_CBOR", "DAG_JSON", "DAG_PB", "JSON", "LIBP2P_KEY", "RAW", "sha256_multihash", "verify"]

RAW = 0x55
CBOR = 0x51
DAG_PB = 0x70
DAG_CBOR = 0x71
LIBP2P_KEY = 0x72
DAG_JSON = 0x0129
JSON = 0x0200

_V0_TEXT_CHARS = 46
_V1_HEADERS = {codec: b"\x01" + varint.encode(codec) for codec in (RAW, DAG_PB, DAG_CBOR, DAG_JSON)}
_V1_SHA2_256 = {_V1_HEADERS[codec] + SHA2_256_PREFIX: codec for codec in (RAW, DAG_PB, DAG_CBOR)}


@dataclass(frozen=True, slots=True, repr=False)
class CID:
    """Version, codec of the block, and multihash. Equal only if all three are; compare `multihash` to compare blocks.

    The constructor trusts its arguments; bytes and text from outside go through `decode` and `parse`.
    """

    version: int
    codec: int
    multihash: bytes

    @classmethod
    def decode(cls, data: bytes) -> CID:
        """Read the binary form, all of it.

        Raises:
            InvalidError: not a CID, trailing bytes, or a digest longer than 128 bytes.
        """
        if len(data) == 36:
            codec = _V1_SHA2_256.get(data[:4])
            if codec is not None:
                return cls(1, codec, data[2:])
        elif len(data) == 34 and data.startswith(SHA2_256_PREFIX):
            return cls(0, DAG_PB, data)
        version, position = varint.decode_strict(data, 0)
        if version != 1:
            raise InvalidError(f"CID version {version} is not known" if version != 0x12 else "a CIDv0 is 34 bytes long")
        codec, position = varint.decode_strict(data, position)
        multihash = data[position:]
        split(multihash)
        return cls(1, codec, multihash)

    @classmethod
    def parse(cls, source: str | bytes) -> CID:
        """Read text (CIDv0 in base58, CIDv1 in any multibase), or bytes as `decode` does.

        Raises:
            InvalidError: not a CID.
        """
        if isinstance(source, bytes):
            return cls.decode(source)
        if len(source) == _V0_TEXT_CHARS and source.startswith("Qm"):
            return cls.decode(multibase.decode_base58(source))
        data = multibase.decode(source)
        if data.startswith(SHA2_256_PREFIX):
            raise InvalidError("a CIDv0 is written without a multibase prefix")
        return cls.decode(data)

    def encode(self) -> bytes:
        """Return the binary form, as it stands in links."""
        if self.version == 0:
            return self.multihash
        return (_V1_HEADERS.get(self.codec) or b"\x01" + varint.encode(self.codec)) + self.multihash

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"CID({self.text()!r})"

    def text(self, base: str = "base32") -> str:
        """Return text in `base32`, `base36`, `base58btc` or `base16`; a CIDv0 is always bare base58.

        Raises:
            InvalidError: another base.
        """
        if self.version == 0:
            return multibase.encode_base58(self.multihash)
        data = self.encode()
        if base == "base32":
            return "b" + multibase.encode_base32(data)
        if base == "base36":
            return "k" + multibase.encode_base36(data)
        if base == "base58btc":
            return "z" + multibase.encode_base58(data)
        if base == "base16":
            return "f" + data.hex()
        raise InvalidError(f"CIDs are not written in {base!r}")

    def to_v1(self) -> CID:
        """Return the same block's CIDv1."""
        return self if self.version else CID(1, self.codec, self.multihash)

    @property
    def digest(self) -> bytes:
        """The digest alone; of an identity CID, the block itself."""
        return split(self.multihash)[1]

    @property
    def hash_code(self) -> int:
        """The multicodec number of the hash function."""
        return split(self.multihash)[0]

    @property
    def is_identity(self) -> bool:
        """True if the block's bytes stand in the CID itself, so that no store is ever asked."""
        return self.multihash[0] == IDENTITY


def verify(which: CID | bytes, data: bytes | memoryview) -> None:
    """Check a block against its CID or multihash.

    Raises:
        BlockMismatchError: other bytes.
        InvalidError: the hash function is unknown or the multihash malformed.
    """
    multihash = which.multihash if isinstance(which, CID) else which
    if not matches(multihash, data):
        raise BlockMismatchError(str(which) if isinstance(which, CID) else multihash.hex())
