"""Who is let in to what only a tenant may read: the bearer of a token, or of a signed link. Decided before any fetch.

A token that is not good is refused whatever it is shown for, so that nothing is learnt of what there is. A link that is
not good is no link: its request is anybody's, and gets what anybody gets.
"""

from __future__ import annotations

import re
from typing import Protocol

import anyio.to_thread

from fungistor.dag.cid import CID
from fungistor.errors import DeniedError, InvalidError
from fungistor.ids import TenantNumber
from fungistor.objects.access import Reader
from gateway.errors import RefusedError
from gateway.negotiation import Format
from gateway.paths import ContentPath
from gateway.requests import Request

LOOKED_AT_ONCE_MAX = 8
"""A look takes a read of the catalog's state: some 100 us."""

_BEARER = re.compile(r"\s*bearer\s+(fst_\S{1,200})\s*", re.IGNORECASE)
_EXPIRES = re.compile(r"[1-9][0-9]{0,12}")


class Tenants(Protocol):
    """What the gateway asks of the network about tenants, in worker threads."""

    def of_token(self, text: str) -> TenantNumber:
        """The tenant whose private objects the bearer may read.

        Raises: BadTokenError: it is no good; DeniedError: it may not read.
        """
        ...

    def of_link(self, root: CID, names: tuple[bytes, ...], form: str, expires: int, signature: str) -> int | None:
        """The tenant whose link this is, None where it is none or has ended."""
        ...


class Admission:
    """One worker's."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._line = anyio.CapacityLimiter(LOOKED_AT_ONCE_MAX)

    async def reader(self, request: Request, path: ContentPath, form: Format) -> Reader | None:
        """For whom a request reads, by its token or its signature; None: for anybody.

        Raises: RefusedError: 401 for a token that is no good, 403 for one that may not read.
        """
        bearer = _BEARER.fullmatch(request.header("authorization") or "")
        if bearer is not None:
            return await anyio.to_thread.run_sync(self._bearer, bearer[1], limiter=self._line)
        expires, signature = request.query.get("exp", ""), request.query.get("sig", "")
        if path.namespace != "ipfs" or not signature or not _EXPIRES.fullmatch(expires):
            return None
        return await anyio.to_thread.run_sync(
            self._linked, path, form.value, int(expires), signature, limiter=self._line
        )

    def _bearer(self, text: str) -> Reader:
        try:
            return Reader(self._tenants.of_token(text))
        except DeniedError as error:
            raise _refusal(error) from error

    def _linked(self, path: ContentPath, form: str, expires: int, signature: str) -> Reader | None:
        try:
            root = CID.parse(path.root)
        except InvalidError:
            return None  # told with all else that is wrong with it
        tenant = self._tenants.of_link(root, path.segments, form, expires, signature)
        return None if tenant is None else Reader(TenantNumber(tenant))


def _refusal(error: DeniedError) -> RefusedError:
    from fungistor.objects.bearers import BadTokenError

    if isinstance(error, BadTokenError):
        return RefusedError(401, error.message, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
    return RefusedError(403, error.message, headers={"WWW-Authenticate": 'Bearer error="insufficient_scope"'})
