"""IPNS names: the multihash of a public key, written in base58 or as a CID of codec libp2p-key."""

from __future__ import annotations

from fungistor.dag import multibase
from fungistor.dag.cid import CID, LIBP2P_KEY
from fungistor.dag.multihash import split
from fungistor.errors import InvalidError

IDENTITY_DIGEST_BYTES_MAX = 42
"""libp2p puts public keys of up to this length into the name itself, as Ed25519's 36 bytes."""

_BASE58_CHARS_MAX = 128
_PREFIXES = ("12D3Koo", "16Uiu2", "Qm", "1")


def parse_key(text: str) -> CID | None:
    """Read an IPNS name that is a key, in any form; None where it can only be a domain name.

    A CIDv1 of another codec over a key's multihash counts: early tools wrote dag-pb.
    """
    if text.startswith(_PREFIXES) and "." not in text and len(text) <= _BASE58_CHARS_MAX:
        try:
            multihash = multibase.decode_base58(text)
            split(multihash)
        except InvalidError:
            return None
        return CID(1, LIBP2P_KEY, multihash)
    if "." in text:
        return None
    try:
        cid = CID.parse(text)
    except InvalidError:
        return None
    return CID(1, LIBP2P_KEY, cid.multihash)


def name_text(key: CID) -> str:
    """Write a key's name as it is written today: base36, which fits a DNS label."""
    return key.text("base36")


def is_canonical(text: str) -> bool:
    """Tell whether a name is written with a multibase prefix, so that it survives where letter case is lost."""
    return not text.startswith(_PREFIXES)
