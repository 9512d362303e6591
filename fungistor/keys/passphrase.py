"""A root key file under a passphrase: scrypt makes a key of it, which seals the root key. See docs/formats/keys.md."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fungistor.errors import DeniedError, InvalidError
from fungistor.keys.ring import KEY_BYTES, SALT_BYTES

PASSPHRASE_FILE_VARIABLE: Final = "FUNGISTOR_PASSPHRASE_FILE"  # noqa: S105 - a name
PASSPHRASE_BYTES_MAX: Final = 1024

LOG_N, BLOCK, LANES = 16, 8, 1
"""64 MiB and some 0.2 s a try."""

_LOG_N_MAX, _BLOCK_MAX, _LANES_MAX = 20, 16, 4
"""A file may not ask for more than 2 GiB, whoever wrote it."""

_AAD: Final = b"fungistor root key 1"
_NONCE: Final = bytes(12)  # each salt makes a key of its own

Ask = Callable[[str], bytes]
"""Gives the passphrase; it is told for what."""


def passphrase_from(environ: Mapping[str, str], prompt: Ask | None) -> Ask:
    """Where a passphrase comes from: the file that FUNGISTOR_PASSPHRASE_FILE names, else the person at the terminal.

    Raises, when asked: DeniedError where there is neither; InvalidError where the file cannot be used.
    """

    def ask(what: str) -> bytes:
        path = environ.get(PASSPHRASE_FILE_VARIABLE)
        if path:
            return _read(path)
        if prompt is None:
            raise DeniedError(
                f"{what} is under a passphrase, and nobody can be asked for it",
                hint=f"set {PASSPHRASE_FILE_VARIABLE} to a file that holds it, or run this at a terminal",
            )
        return checked(prompt(what))

    return ask


def checked(passphrase: bytes) -> bytes:
    """Refuse what cannot be a passphrase. Raises: InvalidError."""
    if not passphrase or len(passphrase) > PASSPHRASE_BYTES_MAX:
        raise InvalidError(f"a passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes, not {len(passphrase)}")
    return passphrase


def seal_key(key: bytes, passphrase: bytes) -> tuple[str, str]:
    """Two lines: how the passphrase is made a key, and the key under it."""
    salt = os.urandom(SALT_BYTES)
    sealed = AESGCM(_stretched(passphrase, salt, LOG_N, BLOCK, LANES)).encrypt(_NONCE, key, _AAD)
    return f"scrypt {LOG_N} {BLOCK} {LANES} {base64.b64encode(salt).decode()}", base64.b64encode(sealed).decode()


def open_key(how: str, sealed: str, passphrase: bytes, path: str) -> bytes:
    """The key in two such lines.

    Raises: DeniedError where the passphrase is another one; InvalidError where the lines are garbled.
    """
    words = how.split()
    if len(words) != 5 or words[0] != "scrypt" or not all(word.isascii() and word.isdigit() for word in words[1:4]):
        raise InvalidError(f"{path} holds no usable key: its second line does not say how", hint=_RESTORE)
    log_n, block, lanes = (int(word[:4]) for word in words[1:4])
    if not 10 <= log_n <= _LOG_N_MAX or not 1 <= block <= _BLOCK_MAX or not 1 <= lanes <= _LANES_MAX:
        raise InvalidError(f"{path} asks for a costlier scrypt than any key needs", hint=_RESTORE)
    try:
        salt, data = (base64.b64decode(text, validate=True) for text in (words[4], sealed))
    except (ValueError, binascii.Error) as error:
        raise InvalidError(f"{path} holds no usable key: it is not base64", hint=_RESTORE) from error
    if len(salt) != SALT_BYTES or len(data) > 4 * KEY_BYTES:
        raise InvalidError(f"{path} holds no usable key: a field has another length", hint=_RESTORE)
    try:
        return AESGCM(_stretched(passphrase, salt, log_n, block, lanes)).decrypt(_NONCE, data, _AAD)
    except InvalidTag:
        raise DeniedError(
            f"this passphrase does not open {path}", hint="try again; or `fungistor keys import` your backup"
        ) from None


_RESTORE = "restore it from your backup with `fungistor keys import`"


def _stretched(passphrase: bytes, salt: bytes, log_n: int, block: int, lanes: int) -> bytes:
    return Scrypt(salt=salt, length=KEY_BYTES, n=1 << log_n, r=block, p=lanes).derive(passphrase)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(PASSPHRASE_BYTES_MAX + 3)
    except OSError as error:
        raise InvalidError(f"{path}: the passphrase cannot be read: {error.strerror or error}") from error
    return checked(content.removesuffix(b"\n").removesuffix(b"\r"))
