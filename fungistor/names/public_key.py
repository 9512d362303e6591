"""Public keys of libp2p: their protobuf, the names made of them, and signatures under them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from fungistor.dag.cid import CID, LIBP2P_KEY, sha256_multihash
from fungistor.dag.multihash import IDENTITY
from fungistor.errors import CorruptError
from fungistor.names.key import IDENTITY_DIGEST_BYTES_MAX
from fungistor.names.protobuf import Fields, encode_bytes, encode_number

RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192
"""libp2p's own bounds: a longer key is an attack on whoever verifies."""

_TYPE, _DATA = 1, 2


class KeyType(IntEnum):
    """Of libp2p's protobuf."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key as it stands in records: `data` is DER (RSA, ECDSA), 32 bytes (Ed25519) or 33 (secp256k1)."""

    type: KeyType
    data: bytes

    @classmethod
    def decode(cls, encoded: bytes) -> PublicKey:
        """Read the protobuf.

        Raises: CorruptError.
        """
        fields = Fields.read(encoded)
        try:
            kind = KeyType(fields.number(_TYPE) or 0)
        except ValueError:
            raise CorruptError(f"a public key of type {fields.number(_TYPE)} is not known") from None
        return cls(kind, fields.bytes(_DATA) or b"")

    def encode(self) -> bytes:
        """Return the protobuf, whose hash is the name."""
        return encode_number(_TYPE, self.type) + encode_bytes(_DATA, self.data)

    @property
    def name(self) -> CID:
        """The IPNS name (and peer id) of this key."""
        encoded = self.encode()
        if len(encoded) <= IDENTITY_DIGEST_BYTES_MAX:
            return CID(1, LIBP2P_KEY, bytes((IDENTITY, len(encoded))) + encoded)
        return CID(1, LIBP2P_KEY, sha256_multihash(encoded))

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a signature.

        Raises: CorruptError where it is another key's, or the key cannot be one.
        """
        try:
            self._verify(signature, message)
        except InvalidSignature:
            raise CorruptError(f"the signature is not of this {self.type.name} key") from None
        except (ValueError, UnsupportedAlgorithm) as error:
            raise CorruptError(f"the record's {self.type.name} key cannot be used: {error}") from error

    def _verify(self, signature: bytes, message: bytes) -> None:
        match self.type:
            case KeyType.ED25519:
                ed25519.Ed25519PublicKey.from_public_bytes(self.data).verify(signature, message)
            case KeyType.RSA:
                key = load_der_public_key(self.data)
                if not isinstance(key, rsa.RSAPublicKey) or not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
                    raise ValueError(f"not an RSA key of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")
                key.verify(signature, message, padding.PKCS1v15(), SHA256())
            case KeyType.SECP256K1:
                curve_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), self.data)
                curve_key.verify(signature, message, ec.ECDSA(SHA256()))
            case KeyType.ECDSA:
                key = load_der_public_key(self.data)
                if not isinstance(key, ec.EllipticCurvePublicKey):
                    raise ValueError("not a key of an elliptic curve")
                key.verify(signature, message, ec.ECDSA(SHA256()))
