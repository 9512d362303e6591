"""What the network leaves in each member's namespace to know it again. The bytes stand in docs/formats/identity.md."""

from __future__ import annotations

from blake3 import blake3

from fungistor.ids import MemberId, MemberNumber
from fungistor.keys.ring import derive

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
