"""The key hierarchy: root -> tenant -> object -> block, and what is derived from the network's key.

Root and tenant keys wrap (AES key wrap, RFC 3394). Object, list and network keys never encrypt: one-use keys
are derived from them, by purpose and salt. The table of purposes is in docs/formats/keys.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fungistor.errors import CorruptError, DeniedError
from fungistor.ids import ObjectId, TenantNumber

KEY_BYTES: Final = 32
WRAPPED_KEY_BYTES: Final = 40
ROOT_KEY_BYTES: Final = 64
"""Of a root key that was rotated: the half that wraps, and the network key, which stays as it names everything."""
SALT_BYTES: Final = 32
FINGERPRINT_BYTES: Final = 8
BLOCK_HASH_BYTES: Final = 16

_CONTEXT: Final = "fungistor v0 "


def derive(key: bytes, purpose: str, salt: bytes = b"") -> bytes:
    """A 32-byte key for one purpose; with a fresh 32-byte salt, for one use.

    BLAKE3's key derivation: the purpose is its context, key and salt its material.
    Raises: ValueError if key or salt have another length.
    """
    if len(key) != KEY_BYTES or len(salt) not in (0, SALT_BYTES):
        raise ValueError(f"a key has {KEY_BYTES} bytes and a salt {SALT_BYTES} or none, not {len(key)} and {len(salt)}")
    return blake3(key + salt, derive_key_context=_CONTEXT + purpose).digest()


def network_mark(network_key: bytes) -> bytes:
    """16 bytes that tell a network from any other and say nothing of its keys."""
    return derive(network_key, "network mark")[:16]


def wrap(wrapping_key: bytes, key: bytes) -> bytes:
    """`key` wrapped under `wrapping_key`: 40 bytes, the same for the same keys (RFC 3394 needs no nonce)."""
    if len(wrapping_key) != KEY_BYTES or len(key) != KEY_BYTES:
        raise ValueError(f"keys have {KEY_BYTES} bytes, not {len(wrapping_key)} and {len(key)}")
    return aes_key_wrap(wrapping_key, key)


def unwrap(wrapping_key: bytes, wrapped: bytes, *, what: str = "object key", under: str = "tenant key") -> bytes:
    """The key inside. `what` and `under` name the two in messages.

    Raises: DeniedError if it was wrapped under another key; CorruptError if it cannot be a wrapped key.
    """
    if len(wrapped) != WRAPPED_KEY_BYTES:
        raise CorruptError(f"a wrapped {what} has {WRAPPED_KEY_BYTES} bytes, not {len(wrapped)}")
    try:
        return aes_key_unwrap(wrapping_key, wrapped)
    except InvalidUnwrap as error:
        raise DeniedError(
            f"this {under} does not open the {what}: it was wrapped under another one, or is damaged",
            hint=f"use the {under} of the network that wrote it",
        ) from error


def fingerprint(root_key: bytes) -> str:
    """16 hex digits that tell root keys apart and give nothing away."""
    return derive(wrapping_half(root_key), "root key fingerprint")[:FINGERPRINT_BYTES].hex()


def wrapping_half(root_key: bytes) -> bytes:
    """What of a root key wraps tenants' keys: all of a first one."""
    return root_key[:KEY_BYTES]


def rotated_root(new_half: bytes, root_key: bytes) -> bytes:
    """The root key that follows on another: its network is the same."""
    return new_half + network_key_of(root_key)


def network_key_of(root_key: bytes) -> bytes:
    """The network's key: derived, or once rotated a part of it, so that who has the root key has it."""
    if len(root_key) == ROOT_KEY_BYTES:
        return root_key[KEY_BYTES:]
    return derive(root_key, "network key")


def authority_of(root_key: bytes) -> SigningKey:
    """The key that says who may write to the network: derived, so that who has the root key has it."""
    return SigningKey(derive(wrapping_half(root_key), "catalog authority"))


def object_id(network_key: bytes, tenant: TenantNumber, codec: int, multihash: bytes) -> ObjectId:
    """The catalog's name of a tenant's root CID. CIDv0 has the codec of dag-pb, so both spellings are one object."""
    named = tenant.to_bytes(4, "big") + codec.to_bytes(8, "big") + multihash
    return ObjectId(blake3(named, key=derive(network_key, "object id")).digest())


def block_hash(network_key: bytes, multihash: bytes) -> bytes:
    """16 bytes under which the block index knows a block."""
    return blake3(multihash, key=derive(network_key, "block index")).digest(BLOCK_HASH_BYTES)


class SigningKey:
    """An Ed25519 key from its seed."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.issuer = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of a message."""
        return self._key.sign(message)


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """What a machine is trusted with: never the root key, only its fingerprint. `signing_key` is an Ed25519 seed."""

    network_key: bytes = field(repr=False)
    tenant_keys: Mapping[TenantNumber, bytes] = field(repr=False)
    signing_key: bytes = field(repr=False)
    root_fingerprint: str

    def __post_init__(self) -> None:
        secrets = (self.network_key, self.signing_key, *self.tenant_keys.values())
        if any(len(secret) != KEY_BYTES for secret in secrets):
            raise ValueError(f"each key of a node has {KEY_BYTES} bytes")

    def tenant_key(self, tenant: TenantNumber) -> bytes:
        """A tenant's key. Raises: DeniedError where this node was not given it."""
        key = self.tenant_keys.get(tenant)
        if key is None:
            raise DeniedError(
                f"this node does not hold the key of tenant {tenant}",
                hint="`fungistor tenant hold` takes it, where the root key is",
            )
        return key

    @property
    def issuer(self) -> bytes:
        """The 32-byte Ed25519 public key that commands of this node name as their issuer."""
        public = Ed25519PrivateKey.from_private_bytes(self.signing_key).public_key()
        return public.public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        return Ed25519PrivateKey.from_private_bytes(self.signing_key).sign(message)

    def check_root(self, root_key: bytes) -> None:
        """Refuse a root key that these keys do not come from. Raises: DeniedError."""
        given = fingerprint(root_key)
        if given != self.root_fingerprint:
            raise DeniedError(
                f"the root key (fingerprint {given}) is not the one this node's keys were issued by "
                f"({self.root_fingerprint})",
                hint="give this network's own root key: keys/root.key of its home, or your backup of it",
            )
