"""Whether whoever shows a token may act for its tenant now."""

from __future__ import annotations

from fungistor.catalog.tenant_view import TenantView
from fungistor.catalog.tenants import Token, TokenScope
from fungistor.errors import DeniedError
from fungistor.keys.tokens import parse_token


class BadTokenError(DeniedError):
    """No token, or one that was revoked or has expired: which of them is not told."""


def check_token(tenants: TenantView, text: str, now: float) -> Token:
    """The token that a text is, if it is good.

    Raises: BadTokenError.
    """
    shown = parse_token(text)
    found = None if shown is None else tenants.token(shown.id)
    # Of an unknown id the digest is compared, too: nobody learns which ids there are by the time that it takes.
    digest = bytes(32) if found is None else found.digest
    is_its = shown is not None and shown.is_of(digest)
    if found is None or not is_its or not found.is_good(now) or tenants.tenant(found.tenant) is None:
        raise BadTokenError(
            "the token is not one of this network, was revoked, or has expired", hint="have another one issued"
        )
    return found


def check_scope(token: Token, scope: TokenScope) -> None:
    """Raises: DeniedError where a token does not have a scope."""
    if not token.scopes & scope:
        wanted = (scope.name or "").lower()
        raise DeniedError(
            f"the token has not the scope {wanted}", hint=f"have one issued: `fungistor token add --scopes {wanted}`"
        )
