"""Write tests/vectors/tenants.json: a token, its digest, and links with their signatures.

Run `python -m tests.vectors.make_tenants`, and only when the format's version grows.
"""

from __future__ import annotations

import json
from pathlib import Path

from fungistor.dag.cid import CID, RAW
from fungistor.ids import TenantNumber
from fungistor.keys.links import Link, link_key, sign_link
from fungistor.keys.tokens import BearerToken

TENANT_KEY = bytes(range(0x20, 0x40))
ROOT = CID(1, RAW, b"\x12\x20" + bytes(range(0x80, 0xA0))).encode()
LINKS = (
    Link(TenantNumber(3), ROOT, (), "", 1_790_003_600),
    Link(TenantNumber(3), ROOT, (b"a", b"b c"), "car", 1_790_003_600),
)


def vectors() -> dict[str, object]:
    """What the file holds."""
    token = BearerToken(bytes(range(0xB0, 0xB8)), bytes(range(0xC0, 0xE0)))
    return {
        "format": "tenants",
        "version": 0,
        "token": {"text": token.text, "digest": token.digest.hex()},
        "tenant_key": TENANT_KEY.hex(),
        "link_key_of_epoch_2": link_key(TENANT_KEY, 2).hex(),
        "root": ROOT.hex(),
        "links": [sign_link(link, TENANT_KEY, 2) for link in LINKS],
    }


if __name__ == "__main__":
    Path(__file__).with_name("tenants.json").write_text(json.dumps(vectors(), indent=1) + "\n")
