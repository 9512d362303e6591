"""Why a name means nothing now, apart by what the one who asked can do."""

from __future__ import annotations

from fungistor.errors import NotFoundError, UnavailableError


class NameNotFoundError(NotFoundError):
    """It was looked up, and means nothing."""


class NameFailedError(UnavailableError):
    """Who was asked for it failed, or what it means cannot be believed any more."""


class NameUnknownError(NameFailedError):
    """No record of a key is held here. Its owner may have published one elsewhere, so nobody here can know that it
    means nothing: no 404."""


class NameTimeoutError(UnavailableError):
    """Who was asked for it did not answer in time."""
