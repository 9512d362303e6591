"""HTTP proxy mode: absolute-form targets, and CONNECT. Pure; `protocol` feeds it.

Neither reaches anything but this gateway: no connection is ever opened for a client. A tunnel leads back into the same
connection, where ordinary requests follow, and is refused for every Host that this gateway does not serve itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

METHOD = b"CONNECT "
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

_HEAD_END = b"\r\n\r\n"
_CONNECT = re.compile(rb"CONNECT ([A-Za-z0-9_.-]{1,1300}|\[[0-9A-Fa-f:.]{2,45}\]):(\d{1,5}) HTTP/1\.[01]")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(.*)", re.DOTALL)
_REFUSAL = (
    b"HTTP/1.1 %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
)


@dataclass(slots=True)
class Opening:
    """The first bytes of a connection, until it is clear whether they ask for a tunnel."""

    buffer: bytes = b""

    def feed(self, data: bytes) -> bool:
        """Take bytes; True while it is not clear yet."""
        self.buffer += data
        if not self.is_connect:
            return METHOD.startswith(self.buffer)
        return _HEAD_END not in self.buffer

    @property
    def is_connect(self) -> bool:
        return self.buffer.startswith(METHOD)

    def take(self) -> tuple[str | None, bytes]:
        """Return the authority that a complete CONNECT asks for, None for a malformed one, and what follows it."""
        head, _, rest = self.buffer.partition(_HEAD_END)
        found = _CONNECT.fullmatch(head.partition(b"\r\n")[0])
        authority = None if found is None else f"{found.group(1).decode()}:{found.group(2).decode()}"
        return authority, rest


def refusal(authority: str | None) -> bytes:
    """Return the whole answer to a tunnel that there will not be."""
    if authority is None:
        return _refuse(b"400 Bad Request", "400: a tunnel is asked for as CONNECT HOST:PORT HTTP/1.1")
    return _refuse(
        b"403 Forbidden", f"403: {authority} is not served here, and this gateway is no relay to other machines"
    )


def _refuse(status: bytes, text: str) -> bytes:
    body = text.encode() + b"\n"
    return _REFUSAL % (status, len(body), body)


def split_absolute(target: bytes) -> tuple[bytes, bytes] | None:
    """Take `scheme://authority/path` apart into authority and origin form; None for a target that is none."""
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return None
    rest = found.group(2).partition(b"#")[0]
    return found.group(1).rpartition(b"@")[2], rest if rest.startswith(b"/") else b"/" + rest
