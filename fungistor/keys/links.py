"""Signed links: for a time they let whoever has one read one path of a private object, in one form.

The signature is a keyed BLAKE3 over what the link is for, under a key of the tenant and of its link epoch: with the
next epoch every link signed before ends. The bytes stand in docs/formats/tenants.md.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from fungistor.ids import TenantNumber
from fungistor.keys.ring import SALT_BYTES, derive

VERSION: Final = 0
METHOD: Final = "GET"
"""HEAD is a GET without its body."""

EXPIRES_MAX: Final = 2**40
_TENANT_BYTES: Final = 4
_TEXT = re.compile(r"[A-Za-z0-9_-]{50}")


@dataclass(frozen=True, slots=True)
class Link:
    """What a link is for: a root (the bytes of its CIDv1), the names below it, the `format=` that it is given in (empty
    for the file or page itself), and until when, in Unix seconds."""

    tenant: TenantNumber
    root: bytes
    names: tuple[bytes, ...]
    form: str
    expires: int


def link_key(tenant_key: bytes, epoch: int) -> bytes:
    """The key of an epoch's signatures."""
    return derive(tenant_key, "link key", epoch.to_bytes(SALT_BYTES, "big"))


def sign_link(link: Link, tenant_key: bytes, epoch: int) -> str:
    """The text of ``sig=``."""
    return base64.urlsafe_b64encode(_signed(link, tenant_key, epoch)).rstrip(b"=").decode()


def tenant_of(signature: str) -> TenantNumber | None:
    """The tenant that a signature says it is of; None for what is no signature."""
    signed = _decoded(signature)
    return None if signed is None else TenantNumber(int.from_bytes(signed[1 : 1 + _TENANT_BYTES], "big"))


def is_signed(link: Link, signature: str, tenant_key: bytes, epoch: int) -> bool:
    """Whether a signature is a link's. Takes as long whatever the answer."""
    return hmac.compare_digest(_decoded(signature) or b"", _signed(link, tenant_key, epoch))


def _signed(link: Link, tenant_key: bytes, epoch: int) -> bytes:
    return bytes((VERSION,)) + link.tenant.to_bytes(_TENANT_BYTES, "big") + _mac(link, tenant_key, epoch)


def _mac(link: Link, tenant_key: bytes, epoch: int) -> bytes:
    parts = (METHOD.encode(), link.form.encode(), link.root, *link.names)
    told = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    numbers = bytes((VERSION,)) + link.tenant.to_bytes(_TENANT_BYTES, "big") + link.expires.to_bytes(8, "big")
    return blake3(numbers + told, key=link_key(tenant_key, epoch)).digest()


def _decoded(signature: str) -> bytes | None:
    if not _TEXT.fullmatch(signature):
        return None
    try:
        signed = base64.b64decode(signature + "==", altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    canonical = base64.urlsafe_b64encode(signed).rstrip(b"=").decode() == signature
    return signed if canonical and signed[0] == VERSION else None
