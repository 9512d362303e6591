"""As whom the network is known: to its members, by what it leaves there (docs/formats/identity.md), and to IPFS."""

from __future__ import annotations

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fungistor.dag.cid import CID
from fungistor.ids import MemberId, MemberNumber
from fungistor.keys.ring import NodeKeys, derive
from fungistor.names.public_key import KeyType, PublicKey

VERSION = 0
PURPOSE = "member identity"
IDENTITY_BYTES = 33
NUMBER_BYTES = 4


def member_identity(network_key: bytes, number: MemberNumber, member: MemberId) -> bytes:
    """The value that only this network can have left at the member of this number and id.

    It is a keyed hash and not a ciphertext: whoever knows the network's key also knows whom it expects there.
    """
    key = derive(network_key, PURPOSE)
    return bytes([VERSION]) + blake3(number.to_bytes(NUMBER_BYTES, "little") + member.encode(), key=key).digest()


def gateway_peer_id(keys: NodeKeys) -> CID:
    """Who this node is to IPFS: the public half of a key of its own, which says nothing of its other keys."""
    seed = derive(keys.signing_key, "gateway peer id")
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return PublicKey(KeyType.ED25519, public.public_bytes(Encoding.Raw, PublicFormat.Raw)).name
