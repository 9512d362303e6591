"""What a daemon shows who connects by TLS, and whom it lets in."""

from __future__ import annotations

import datetime as dt
import ssl
from dataclasses import dataclass
from typing import Final

from fungistor.errors import FailedError
from fungistor.zdb.daemon.config import DaemonConfig

HANDSHAKE_S: Final = 10.0
SHUTDOWN_S: Final = 3.0
_PEM_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """A context ready to serve, and until when its certificate is valid (unix seconds)."""

    context: ssl.SSLContext
    expires: float


def load_credentials(config: DaemonConfig) -> Credentials:
    """Read certificate, key and authorities, all anew.

    Raises:
        FailedError: a file cannot be read, or they do not go together; nothing is changed by that.
    """
    assert config.tls_cert is not None, "the command line is checked for that"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    key = config.tls_key or config.tls_cert
    try:
        for path in filter(None, (config.tls_cert, key, config.tls_ca)):
            # The loading calls do not say which file it was.
            with open(path, "rb") as file:
                file.read(1)
        expires = _expiry(config.tls_cert)
        context.load_cert_chain(config.tls_cert, key, password=_no_passphrase)
        if config.tls_ca is not None:
            context.load_verify_locations(config.tls_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        files = ", ".join(dict.fromkeys(path for path in (config.tls_cert, key, config.tls_ca) if path))
        raise FailedError(
            f"the TLS files do not serve ({files}): {error.reason or error}",
            hint="PEM; the key must be that of the certificate, without a passphrase",
        ) from error
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        where = error.filename if isinstance(error, OSError) and error.filename else config.tls_cert
        raise FailedError(f"cannot use the TLS file {where}: {said}") from error
    return Credentials(context, expires)


def _no_passphrase() -> bytes:
    """Refuse a key that is locked: nobody sits at the terminal of a daemon."""
    raise ValueError("the key has a passphrase")


def _expiry(path: str) -> float:
    # Here, since it takes 5 MiB and only a daemon with TLS needs it.
    from cryptography import x509

    with open(path, "rb") as file:
        pem = file.read(_PEM_BYTES_MAX)
    certificate = x509.load_pem_x509_certificates(pem)[0]
    return certificate.not_valid_after_utc.replace(tzinfo=dt.UTC).timestamp()
