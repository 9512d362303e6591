"""A file that is given to a command, or its standard input."""

from __future__ import annotations

import sys

from fungistor.errors import InvalidError
from fungistor.node.files import read_bounded


def read_given(path: str, bytes_max: int, what: str) -> bytes:
    """All of it; `-` is the standard input. `what` says what is never so long.

    Raises: InvalidError: it cannot be read, or is longer.
    """
    if path == "-":
        content: bytes | None = sys.stdin.buffer.read(bytes_max + 1)
    else:
        try:
            content = read_bounded(path, bytes_max)
        except OSError as error:
            raise InvalidError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if content is None or len(content) > bytes_max:
        raise InvalidError(f"{path} is longer than {bytes_max} bytes: {what}")
    return content
