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
    return salt + _seal(object_key, name, salt)


def seal_first_name(object_key: bytes, name: ObjectName, salt: bytes) -> bytes:
    """As `seal_name`, under the salt of the manifest that the key was drawn for: it stands in the record, so not here.

    Only the first name under a key may be sealed so, and only where every node knows this form.
    """
    return _seal(object_key, name, salt)


def _seal(object_key: bytes, name: ObjectName, salt: bytes) -> bytes:
    plain: bytes = libipld.encode_dag_cbor([name.cid.encode(), name.name])
    return seal(derive(object_key, _PURPOSE, salt), plain, _AAD)


def open_name(object_key: bytes, sealed: bytes, salt: bytes) -> ObjectName:
    """Open what `seal_name` or `seal_first_name` sealed; `salt` is the record's.

    Raises:
        CorruptError: it was sealed under another key or is damaged.
    """
    try:
        plain = open_sealed(derive(object_key, _PURPOSE, salt), sealed, _AAD)
    except FungiStorError:
        plain = open_sealed(derive(object_key, _PURPOSE, sealed[:SALT_BYTES]), sealed[SALT_BYTES:], _AAD)
    try:
        cid, name = libipld.decode_dag_cbor(plain)
        return ObjectName(CID.decode(cid), str(name))
    except (ValueError, TypeError, FungiStorError) as error:
        raise CorruptError("a record's sealed name is not in the form of version 0") from error
