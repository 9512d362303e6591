"""The tree of errors: six families and a plain failure, named by what the caller does next.

The family alone decides the exit code of a command and the status of a gateway's answer. A message states
facts with numbers, in lower case, and never holds a secret; `hint` is the next step for a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class FungiStorError(Exception):
    """Root of every error that is not a bug. `kind` and `exit_code` are the contract of the command line."""

    kind: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class FailedError(FungiStorError):
    """It was tried and failed for a reason of this machine: an unreadable file, a full disk."""


class InvalidError(FungiStorError):
    """The request or the input is wrong; repeating it cannot help."""

    kind = "invalid"
    exit_code = 2


class UnavailableError(FungiStorError):
    """It cannot be had now: too few shards, quorum lost, network not running. Trying later can help."""

    kind = "unavailable"
    exit_code = 3

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int = 5) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class NotFoundError(FungiStorError):
    """It was looked for everywhere it could be, and is not there."""

    kind = "not_found"
    exit_code = 4


class DeniedError(FungiStorError):
    """Not permitted, or sealed under another key."""

    kind = "denied"
    exit_code = 5


class ConflictError(FungiStorError):
    """The catalog moved on since it was read."""

    kind = "conflict"
    exit_code = 6


class CorruptError(FungiStorError):
    """Bytes do not match their hash, tag or format. They are never served."""

    kind = "corrupt"
    exit_code = 1


class NotPermittedError(DeniedError):
    """This node may not write that to its network: unlike a file that is closed to us, it holds for every path."""


class NotEnoughShardsError(UnavailableError):
    """Fewer shards of a stripe can be had than it takes to bring it back.

    `silent`: some members accepted the question and never answered, so this is the end of a wait.
    """

    def __init__(self, *, found: int, needed: int, by_member: Mapping[str, str], silent: bool = False) -> None:
        self.found = found
        self.needed = needed
        self.by_member = dict(by_member)
        self.silent = silent
        why = "; ".join(f"{member}: {reason}" for member, reason in sorted(self.by_member.items()))
        super().__init__(
            f"only {found} of the {needed} shards needed can be had ({why or 'no member answered'})",
            hint="start the members named, or wait until they are back: `fungistor status` shows them",
        )


class BlockMismatchError(CorruptError):
    """A block's bytes do not hash to its CID."""

    def __init__(self, cid: str) -> None:
        super().__init__(f"block {cid} does not match its hash")
