"""Leave to serve, asked of an HTTP service before any block is fetched (forward auth, as proxies know it).

The service gets a GET with the client's ``Authorization`` and ``Cookie`` and what is asked for in ``X-Forwarded-*``.
2xx: serve. 401 and 403 are told to the client, with ``WWW-Authenticate``. 404 hides that there is anything. All else,
and no answer in time, is 503: where leave is needed, its absence is no leave.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from urllib.parse import urlsplit

import anyio.to_thread

from gateway.errors import RefusedError

ASKED_AT_ONCE_MAX = 64
REASON_BYTES_MAX = 200
_PASSED_ON = ("authorization", "cookie", "user-agent", "traceparent", "tracestate")


class ForwardAuthorization:
    """Asks one URL."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._parts = urlsplit(url)
        self._timeout_s = timeout_s
        self._line = anyio.CapacityLimiter(ASKED_AT_ONCE_MAX)

    async def check(self, *, method: str, target: str, client: str, request_id: str, fields: Mapping[str, str]) -> None:
        """Return where it may be served.

        Raises:
            RefusedError: it may not, or nobody can tell.
        """
        asked = {name.title(): fields[name] for name in _PASSED_ON if name in fields}
        asked |= {
            "X-Forwarded-Method": method,
            "X-Forwarded-Uri": target,
            "X-Forwarded-Host": fields.get("host", ""),
            "X-Forwarded-For": client,
            "X-Request-Id": request_id,
        }
        try:
            status, challenge = await anyio.to_thread.run_sync(self._ask, asked, limiter=self._line)
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(type(error).__name__) from error
        if 200 <= status < 300:
            return
        if status in (401, 403):
            headers = {"WWW-Authenticate": challenge} if challenge and status == 401 else {}
            raise RefusedError(status, "you are not authorized to read this", headers=headers)
        if status == 404:
            raise RefusedError(404, "not stored in this network")
        raise self._no_answer(f"status {status}")

    def _no_answer(self, why: str) -> RefusedError:
        return RefusedError(
            503, f"the service that authorizes requests gave no answer ({why})", headers={"Retry-After": "5"}
        )

    def _ask(self, fields: dict[str, str]) -> tuple[int, str]:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        assert self._parts.hostname is not None
        connection = kind(self._parts.hostname, self._parts.port, timeout=self._timeout_s)
        try:
            path = self._parts.path or "/"
            connection.request("GET", f"{path}?{self._parts.query}" if self._parts.query else path, headers=fields)
            answer = connection.getresponse()
            return answer.status, (answer.getheader("WWW-Authenticate") or "")[:REASON_BYTES_MAX]
        finally:
            connection.close()
