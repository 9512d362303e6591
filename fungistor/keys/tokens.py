"""Tokens as their bearers have them: ``fst_<id>_<secret>``. What the catalog keeps of one is a digest.

The secret is random, so a plain hash is enough: there is nothing to guess that stretching would protect.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

ID_BYTES: Final = 8
SECRET_BYTES: Final = 32
PREFIX: Final = "fst_"
_CONTEXT: Final = "fungistor v0 token digest"
_TEXT = re.compile(r"fst_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token in the hands of its bearer."""

    id: bytes
    secret: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """What the bearer shows."""
        return f"{PREFIX}{self.id.hex()}_{base64.urlsafe_b64encode(self.secret).rstrip(b'=').decode()}"

    @property
    def digest(self) -> bytes:
        """What the catalog keeps: 32 bytes."""
        return blake3(self.id + self.secret, derive_key_context=_CONTEXT).digest()

    def is_of(self, digest: bytes) -> bool:
        """Whether a digest is this token's. Takes as long whatever the answer."""
        return hmac.compare_digest(self.digest, digest)


def draw_token() -> BearerToken:
    """A token that nobody has had before."""
    return BearerToken(secrets.token_bytes(ID_BYTES), secrets.token_bytes(SECRET_BYTES))


def parse_token(text: str) -> BearerToken | None:
    """The token in its one form of text; None for anything else."""
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    try:
        token = BearerToken(bytes.fromhex(found[1]), base64.b64decode(found[2] + "=", altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        return None
    return token if token.text == text else None
