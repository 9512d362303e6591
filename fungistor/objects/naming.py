"""An object's CID and name, sealed in its record under the object key: whoever runs the log sees neither."""

from __future__ import annotations

import os
from dataclasses import dataclass

import libipld

from fungistor.coding.seal import open_sealed, seal
from fungistor.dag.cid import CID
from fungistor.errors import CorruptError, FungiStorError
from fungistor.keys.ring import derive

SALT_BYTES = 32
_PURPOSE = "record name"
_AAD = b"fungistor record name 0"


@dataclass(frozen=True, slots=True)
class ObjectName:
    """What a person knows an object by."""

    cid: CID
    name: str


def seal_name(object_key: bytes, name: ObjectName) -> bytes:
    """Seal under a one-use key: 32 bytes of salt, then DAG-CBOR ``[CID bytes, name]`` with its tag."""
    salt = os.urandom(SALT_BYTES)
    plain: bytes = libipld.encode_dag_cbor([name.cid.encode(), name.name])
    return salt + seal(derive(object_key, _PURPOSE, salt), plain, _AAD)


def open_name(object_key: bytes, sealed: bytes) -> ObjectName:
    """Open what `seal_name` sealed.

    Raises:
        CorruptError: it was sealed under another key or is damaged.
    """
    plain = open_sealed(derive(object_key, _PURPOSE, sealed[:SALT_BYTES]), sealed[SALT_BYTES:], _AAD)
    try:
        cid, name = libipld.decode_dag_cbor(plain)
        return ObjectName(CID.decode(cid), str(name))
    except (ValueError, TypeError, FungiStorError) as error:
        raise CorruptError("a record's sealed name is not in the form of version 0") from error
