"""Connections to members by TLS: who answers must prove by its certificate that it is the host of the address."""

from __future__ import annotations

import functools
import os
import select
import ssl
from collections.abc import Sequence

from fungistor.zdb.address import Endpoint
from fungistor.zdb.client import Connection, LocalError, Login, MemberError, Tls


@functools.lru_cache(maxsize=32)
def _context(tls: Tls, _changed: tuple[float, ...]) -> ssl.SSLContext:
    """A context that verifies, made once for these files as they are now."""
    context = ssl.create_default_context(cafile=tls.authorities or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate:
        context.load_cert_chain(tls.certificate, tls.key or None, password=lambda: "")
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """The context for these files; a file that was replaced is read again. Raises: LocalError."""
    try:
        changed = tuple(os.stat(path).st_mtime for path in (tls.authorities, tls.certificate, tls.key) if path)
        return _context(tls, changed)
    except (OSError, ValueError) as error:
        raise LocalError(f"this machine's TLS files do not serve: {error}") from error


class TlsConnection(Connection):
    """The same, with TLS in between. Nothing is sent before the certificate is believed."""

    def __init__(self, endpoint: Endpoint, login: Login) -> None:
        assert login.tls is not None, "callers look first"
        self._context = client_context(login.tls)
        self._host = endpoint.host
        self._link: ssl.SSLSocket | None = None
        self._secure = False
        self._writes = False
        """Whether the handshake waits for room to write."""
        self._dry = False
        super().__init__(endpoint, login)

    def interest(self) -> int:
        if not self._connected or self._secure:
            return super().interest()
        return select.POLLOUT if self._writes or self._link is None else select.POLLIN

    def advance(self, events: int) -> bool:  # noqa: ARG002  # TLS reads to write and writes to read
        if not self._connected:
            try:
                self._finish_connect()
            except OSError as error:
                raise MemberError(f"broke off: {error.strerror or error}") from error
        if not self._secure and not self._shake_hands():
            return False
        self._flush()
        # What TLS has read and not given yet is announced by no poll: take all there is.
        self._dry = whole = False
        while not whole and not self._dry:
            whole = super().advance(select.POLLIN)
        return whole

    def _shake_hands(self) -> bool:
        try:
            if self._link is None:
                self._link = self._context.wrap_socket(
                    self._socket, server_hostname=self._host, do_handshake_on_connect=False
                )
                self._socket = self._link
            self._link.do_handshake()
        except ssl.SSLWantReadError:
            self._writes = False
            return False
        except ssl.SSLWantWriteError:
            self._writes = True
            return False
        except ssl.SSLCertVerificationError as error:
            raise MemberError(f"shows a certificate that is not believed: {error.verify_message}") from error
        except (OSError, ValueError) as error:
            said = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise MemberError(f"no TLS with it: {said}") from error
        self._secure = True
        return True

    def _flush(self) -> None:
        if self._secure:
            super()._flush()

    def _send(self, batch: Sequence[memoryview]) -> int:
        assert self._link is not None, "it is secure"
        try:
            return self._link.send(batch[0])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error

    def _receive_into(self, room: Sequence[memoryview]) -> int:
        assert self._link is not None, "it is secure"
        try:
            return self._link.recv_into(room[0])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            self._dry = True
            raise BlockingIOError from error
