"""What a name means, sealed under the name's own key: whoever has the log alone sees neither name nor CID."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

import libipld
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fungistor.catalog.names import VALUE_ID_BYTES
from fungistor.coding.seal import open_sealed, seal
from fungistor.dag.cid import CID
from fungistor.errors import CorruptError, FungiStorError
from fungistor.ids import TenantNumber
from fungistor.keys.ring import SALT_BYTES, derive
from fungistor.names.public_key import KeyType, PublicKey
from fungistor.names.record import create

_AAD: Final = b"fungistor name value 0"


@dataclass(frozen=True, slots=True)
class NamedPath:
    """A name, the content path that it means, and for how long: each record of it, and who caches one."""

    name: str
    path: str
    ttl_s: int
    lifetime_s: int


def name_id(network_key: bytes, tenant: TenantNumber, name: str) -> bytes:
    """The catalog's name of a tenant's name."""
    return blake3(tenant.to_bytes(4, "big") + name.encode(), key=derive(network_key, "name id")).digest()


def seal_value(name_key: bytes, value: NamedPath) -> tuple[bytes, bytes]:
    """Seal under a one-use key: 32 bytes of salt, then DAG-CBOR ``[name, path, ttl, lifetime]`` with its tag.

    The second is the value's id: equal for equal values of this name.
    """
    plain: bytes = libipld.encode_dag_cbor([value.name, value.path, value.ttl_s, value.lifetime_s])
    salt = os.urandom(SALT_BYTES)
    value_id = blake3(plain, key=derive(name_key, "name value id")).digest(VALUE_ID_BYTES)
    return salt + seal(derive(name_key, "name value", salt), plain, _AAD), value_id


def open_value(name_key: bytes, sealed: bytes) -> NamedPath:
    """Open what `seal_value` sealed.

    Raises:
        CorruptError: it was sealed under another key or is damaged.
    """
    if len(sealed) <= SALT_BYTES:
        raise CorruptError("a name's sealed value ends within its salt")
    plain = open_sealed(derive(name_key, "name value", sealed[:SALT_BYTES]), sealed[SALT_BYTES:], _AAD)
    try:
        name, path, ttl_s, lifetime_s = libipld.decode_dag_cbor(plain)
        return NamedPath(str(name), str(path), int(ttl_s), int(lifetime_s))
    except (ValueError, TypeError, FungiStorError) as error:
        raise CorruptError("a name's sealed value is not in the form of version 0") from error


class NameKey:
    """The IPNS key of a name: Ed25519, from a seed derived from the name's key."""

    def __init__(self, name_key: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(derive(name_key, "ipns key"))
        public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._public = PublicKey(KeyType.ED25519, public)

    @property
    def ipns(self) -> CID:
        """The IPNS name."""
        return self._public.name

    def sign(self, value: NamedPath, sequence: int, now_s: int) -> bytes:
        """An IPNS record that holds from now for the value's lifetime."""
        return create(value.path, sequence, now_s + value.lifetime_s, value.ttl_s, self._public, self._private.sign)
