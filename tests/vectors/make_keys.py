"""Writes tests/vectors/keys.json: derivation, wrapping and key files of format version 0.

Run `python -m tests.vectors.make_keys` only when the format's version changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fungistor.ids import TenantNumber
from fungistor.keys.files import encode_node_keys, encode_root_key
from fungistor.keys.ring import NodeKeys, block_hash, derive, fingerprint, network_key_of, object_id, wrap

ROOT_KEY = bytes(range(32))
TENANT_KEY = bytes(range(32, 64))
OBJECT_KEY = bytes(range(64, 96))
SALT = bytes(range(96, 128))
MULTIHASH = bytes((0x12, 0x20)) + bytes(range(128, 160))
NETWORK_KEY = network_key_of(ROOT_KEY)
NODE_KEYS = NodeKeys(NETWORK_KEY, {TenantNumber(0): TENANT_KEY}, SALT, fingerprint(ROOT_KEY))


def vectors() -> dict[str, Any]:
    """What the code gives today."""
    return {
        "version": 0,
        "root_key": ROOT_KEY.hex(),
        "root_key_fingerprint": fingerprint(ROOT_KEY),
        "network_key": NETWORK_KEY.hex(),
        "tenant_key": TENANT_KEY.hex(),
        "tenant_key_wrapped": wrap(ROOT_KEY, TENANT_KEY).hex(),
        "object_key": OBJECT_KEY.hex(),
        "object_key_wrapped": wrap(TENANT_KEY, OBJECT_KEY).hex(),
        "salt": SALT.hex(),
        "map_root_page_key": derive(OBJECT_KEY, "map root page", SALT).hex(),
        "multihash": MULTIHASH.hex(),
        "object_id_of_tenant_0_dag_pb": object_id(NETWORK_KEY, TenantNumber(0), 0x70, MULTIHASH).hex(),
        "block_hash": block_hash(NETWORK_KEY, MULTIHASH).hex(),
        "root_key_file": encode_root_key(ROOT_KEY).decode(),
        "node_key_file": encode_node_keys(NODE_KEYS).decode(),
        "issuer": NODE_KEYS.issuer.hex(),
    }


if __name__ == "__main__":
    (Path(__file__).parent / "keys.json").write_text(json.dumps(vectors(), indent=1) + "\n")
