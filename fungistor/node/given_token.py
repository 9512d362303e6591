"""The token that a command is given: by the environment or by a file, never by an argument, which others can list."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from fungistor.errors import DeniedError, InvalidError
from fungistor.node.files import read_bounded

TOKEN_VARIABLE = "FUNGISTOR_TOKEN"  # noqa: S105 - a variable's name
TOKEN_FILE_VARIABLE = "FUNGISTOR_TOKEN_FILE"  # noqa: S105
TOKEN_FILE_BYTES_MAX = 4096


def is_token_given(environ: Mapping[str, str]) -> bool:
    """Whether there is one."""
    return bool(environ.get(TOKEN_VARIABLE) or environ.get(TOKEN_FILE_VARIABLE))


def given_token(environ: Mapping[str, str]) -> str | None:
    """The token that the environment has, or names the file of.

    Raises: InvalidError, DeniedError: the file cannot be used, or others can read it.
    """
    text, path = environ.get(TOKEN_VARIABLE, ""), environ.get(TOKEN_FILE_VARIABLE, "")
    if text and path:
        raise InvalidError(f"both {TOKEN_VARIABLE} and {TOKEN_FILE_VARIABLE} are set", hint="unset one of them")
    if not path:
        return text.strip() or None
    try:
        mode = os.stat(path).st_mode
        content = read_bounded(path, TOKEN_FILE_BYTES_MAX)
    except OSError as error:
        raise InvalidError(f"{TOKEN_FILE_VARIABLE}: {path}: {(error.strerror or '').lower()}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise DeniedError(f"{path} can be read by others than its owner", hint=f"chmod 600 {path}")
    token = (content or b"").decode("ascii", "replace").strip()
    if not token:
        raise InvalidError(f"{TOKEN_FILE_VARIABLE}: {path} holds no token")
    return token
