"""Claim checks: a large entry lies in the pool, and the engine's log holds what it is claimed by there.

What is appended to etcd stays in its memory for as long as its raft log goes back, 5,000 requests and more: entries of
a thousand publishes each would be all of what it holds. The pattern is "Claim Check" of Hohpe and Woolf, *Enterprise
Integration Patterns*, 2003. The bytes stand in docs/formats/catalog.md.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from blake3 import blake3

from fungistor.catalog.fields import decode_array, encode_array
from fungistor.catalog.log import Entry, Log, LogOver, LogTrimmedError, Position, check_batch, entry_number
from fungistor.errors import UnavailableError
from fungistor.limits import COMMAND_BYTES_MAX

CLAIM_VERSION: Final = 1
"""A claim is a command of this version: a program that knows none stops there, and says that it is too old."""

CLAIM_LEVEL: Final = 3
"""Of nodes that read claims."""

CLAIMED_BYTES: Final = 4 << 10
"""Smaller entries stand in the log themselves: a claim costs a value on six members and a flush of them."""

PLACE_BYTES: Final = 16
DIGEST_BYTES: Final = 32
WINDOW_BYTES: Final = 512 << 10
"""As much is claimed at once; whoever applies entries takes no more in a turn."""

WINDOW_ENTRIES: Final = 64
CLAIMS_KEPT: Final = 4096

_HEAD: Final = encode_array([CLAIM_VERSION, b"", b"", 0])[:2]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """What an entry is claimed by: `place` is drawn for each time one is put away, so that no two share what may be
    deleted behind one of them; `digest` and `size` are of its payload."""

    place: bytes
    digest: bytes
    size: int

    def fits(self, payload: bytes) -> bool:
        """Whether it was given for these bytes."""
        return len(payload) == self.size and blake3(payload).digest() == self.digest


class Deposit(Protocol):
    """Where large entries lie. Thread-safe."""

    def put(self, claim: Claim, payload: bytes) -> None:
        """Keep an entry durably. Raises: UnavailableError: it cannot be kept now."""

    def settled(self, claim: Claim) -> None:
        """Its claim stands in the log: what is put and never settled may be deleted once this process has ended."""

    def get(self, claims: Sequence[Claim]) -> list[bytes | None]:
        """The entries that claims were given for; None for one that cannot be had now."""

    def close(self) -> None:
        """Harmless when repeated."""


def encode_claim(claim: Claim) -> bytes:
    """The claim as it stands in the log."""
    return encode_array([CLAIM_VERSION, claim.place, claim.digest, claim.size])


def claim_in(stands: bytes) -> Claim | None:
    """The claim, if what stands in the log is one. Raises: CorruptError: it is a damaged one."""
    if not stands.startswith(_HEAD):
        return None
    fields = decode_array(stands, "claim")
    fields.uint("version")
    place = fields.bytes("place", PLACE_BYTES, PLACE_BYTES)
    digest = fields.bytes("digest", DIGEST_BYTES, DIGEST_BYTES)
    size = fields.uint("size", COMMAND_BYTES_MAX)
    fields.end()
    return Claim(place, digest, size)


class ClaimCheckLog(LogOver):
    """A `fungistor.catalog.log.Log` on another one, whose large entries lie in a deposit. Nobody above sees claims."""

    def __init__(
        self, inner: Log, deposit: Deposit, may_claim: Callable[[], bool], claimed_bytes: int = CLAIMED_BYTES
    ) -> None:
        """`may_claim`: whether all who read this log know claims. `claimed_bytes`: of an entry that is put away."""
        super().__init__(inner)
        self._deposit = deposit
        self._may_claim = may_claim
        self._claimed_bytes = claimed_bytes
        self._lock = threading.Lock()
        self._claims: OrderedDict[int, Claim] = OrderedDict()

    def append(self, fence: int, batch: Sequence[bytes]) -> Position:
        check_batch(batch)
        claims = [self._put(payload) for payload in batch]
        stands = [
            payload if claim is None else encode_claim(claim) for payload, claim in zip(batch, claims, strict=True)
        ]
        position = self._log.append(fence, stands)
        for number, claim in enumerate(claims, entry_number(position) - len(batch) + 1):
            if claim is not None:
                self._deposit.settled(claim)
                self._keep(number, claim)
        return position

    def _put(self, payload: bytes) -> Claim | None:
        """Put an entry away; None: it stands in the log itself."""
        if len(payload) < self._claimed_bytes or not self._may_claim():
            return None
        claim = Claim(secrets.token_bytes(PLACE_BYTES), blake3(payload).digest(), len(payload))
        try:
            self._deposit.put(claim, payload)
        except UnavailableError as error:
            log.info("an entry of %d bytes goes into the log itself: %s", len(payload), error.message)
            return None
        return claim

    def read(self, after: Position) -> Iterator[Entry]:
        window: list[tuple[Entry, Claim | None]] = []
        size = 0
        for entry in self._log.read(after):
            claim = claim_in(entry.payload)
            window.append((entry, claim))
            size += len(entry.payload) if claim is None else claim.size
            if size >= WINDOW_BYTES or len(window) >= WINDOW_ENTRIES:
                yield from self._claimed(window)
                window, size = [], 0
        yield from self._claimed(window)

    def _claimed(self, window: Sequence[tuple[Entry, Claim | None]]) -> Iterator[Entry]:
        claims = [claim for _, claim in window if claim is not None]
        payloads = iter(self._deposit.get(claims) if claims else [])
        for entry, claim in window:
            if claim is None:
                yield entry
                continue
            payload, number = next(payloads), entry_number(entry.position)
            if payload is None:
                raise self._missing(number)
            self._keep(number, claim)
            yield replace(entry, payload=payload)

    def _missing(self, number: int) -> LogTrimmedError | UnavailableError:
        if entry_number(self._log.trimmed()) >= number:
            return LogTrimmedError("the catalog's log")  # since it was read; then its entries go from the pool, too
        return UnavailableError(
            f"entry {number} of the catalog lies on members, and none that answers has it",
            hint="start the members that are down: `fungistor status` shows them",
        )

    def _keep(self, number: int, claim: Claim) -> None:
        with self._lock:
            self._claims[number] = claim
            if len(self._claims) > CLAIMS_KEPT:
                self._claims.popitem(last=False)

    def claim_at(self, number: int) -> Claim | None:
        """The claim that stands for an entry which this process has appended or read lately."""
        with self._lock:
            return self._claims.get(number)

    def close(self) -> None:
        super().close()
        self._deposit.close()
