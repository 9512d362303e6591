"""Where a network's large entries lie for which claims stand in its log: on members, as the copies of all others."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fungistor.catalog.claims import Claim, ClaimCheckLog
from fungistor.errors import CorruptError, UnavailableError
from fungistor.node.copies.formats import CopyFormats
from fungistor.node.copies.unsettled import Unsettled
from fungistor.pool.members import MemberSpec
from fungistor.pool.pool import Pool


class EntryDeposit:
    """`fungistor.catalog.claims.Deposit` on members. Thread-safe.

    What is put needs the network's pool (`attach`). Reading begins before that is known, as a node learns from the
    catalog who the members are: until then whoever answers at the places of the pool file is asked.
    """

    def __init__(
        self,
        formats: CopyFormats,
        log: Callable[[], bytes],
        places: Callable[[], Sequence[MemberSpec]],
        notes: str,
    ) -> None:
        """`log`: the identity of the log. `notes`: a folder of the home for `Unsettled`."""
        self._formats = formats
        self._log = log
        self._places = places
        self._unsettled = Unsettled(notes)
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._asked: Pool | None = None

    def attach(self, pool: Pool) -> None:
        """These are the members."""
        with self._lock:
            self._pool, asked = pool, self._asked
            self._asked = None
        if asked is not None:
            asked.close()

    def put(self, claim: Claim, payload: bytes) -> None:
        pool = self._pool
        if pool is None or not pool.members():
            raise UnavailableError("no members are known here")
        try:
            self._unsettled.add(self._name(claim))
        except OSError as error:
            raise UnavailableError(f"the home cannot be written: {error.strerror or error}") from error
        self._keep(pool, claim, payload)

    def put_again(self, claim: Claim, payload: bytes) -> None:
        """Bring an entry to the members that should have it now. Raises: UnavailableError."""
        if self._pool is not None:
            self._keep(self._pool, claim, payload)

    def _keep(self, pool: Pool, claim: Claim, payload: bytes) -> None:
        pool.keep([(self._name(claim), self._formats.seal_entry(self._log(), payload))], claim.place)

    def settled(self, claim: Claim) -> None:
        with contextlib.suppress(OSError):  # then it is looked at once more when this process has ended
            self._unsettled.remove(self._name(claim))

    def get(self, claims: Sequence[Claim]) -> list[bytes | None]:
        return find_entries(self._reached(), self._formats, self._log(), claims)

    def _reached(self) -> Pool:
        with self._lock:
            if self._pool is not None:
                return self._pool
            if self._asked is None:
                self._asked = Pool(self._places(), {})
            return self._asked

    def _name(self, claim: Claim) -> bytes:
        return self._formats.entry_name(self._log(), claim.place)

    def left_behind(self, last: int, trimmed: int) -> Iterator[Sequence[bytes]]:
        """As `Unsettled.left_behind`."""
        return self._unsettled.left_behind(last, trimmed)

    def close(self) -> None:
        """The pool that was attached stays open."""
        self._unsettled.close()
        with self._lock:
            asked, self._asked = self._asked, None
        if asked is not None:
            asked.close()


def find_entries(pool: Pool, formats: CopyFormats, log: bytes, claims: Sequence[Claim]) -> list[bytes | None]:
    """The entries that claims were given for, None for one that no member has that answers."""
    wanted = {formats.entry_name(log, claim.place): claim for claim in claims}
    found: dict[bytes, bytes] = {}

    def accept(name: bytes, value: bytes) -> bool:
        with contextlib.suppress(CorruptError):
            payload = formats.open_entry(log, value)
            if wanted[name].fits(payload):
                found[name] = payload
                return True
        return False

    pool.find_by_seed({name: claim.place for name, claim in wanted.items()}, accept)
    return [found.get(name) for name in wanted]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A log that has claims in place of large entries, and where those are."""

    log: ClaimCheckLog
    deposit: EntryDeposit
