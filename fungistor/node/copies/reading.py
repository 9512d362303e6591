"""Reading the catalog back from members: the anchor, the snapshot it names, the segments after it, and the keys."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from fungistor.catalog.claims import claim_in
from fungistor.errors import CorruptError
from fungistor.ids import MemberId, MemberNumber, ObjectId
from fungistor.keys.store import KeyRow
from fungistor.node.copies.deposit import find_entries
from fungistor.node.copies.formats import Anchor, CopyFormats, Segment, link_to
from fungistor.node.members import unknown_spec
from fungistor.node.pool_file import PoolMember
from fungistor.pool.members import IDENTITY_KEY, MemberSpec
from fungistor.pool.pool import Pool

SEGMENTS_AHEAD = 512
SEGMENTS_A_REQUEST = 16
"""Of a MiB and more each, at most."""

KEYS_AHEAD = 8192
KEYS_A_REQUEST = 256


def numbered_specs(members: Sequence[PoolMember]) -> list[MemberSpec]:
    """Members whose numbers in the network are not known yet: whoever answers is taken, as all that is read proves
    itself."""
    return [
        replace(unknown_spec(member), number=MemberNumber(place))
        for place, member in enumerate(sorted(members, key=lambda member: member.id), 1)
    ]


class CopyReader:
    """Reads what `fungistor.node.copies.copier` wrote. A value that does not open is as good as none."""

    def __init__(self, pool: Pool, formats: CopyFormats) -> None:
        self._pool = pool
        self._formats = formats

    def answering(self) -> tuple[set[str], set[str]]:
        """Members that answer and hold a network's identity, and those that answer and hold none."""
        values = self._pool.read_each(IDENTITY_KEY, self._pool.members())
        holding = {self._pool.name(member) for member, value in values.items() if value is not None}
        return holding, {self._pool.name(member) for member in values} - holding

    def anchor(self) -> Anchor | None:
        """The newest anchor that a member has."""
        values = self._pool.read_each(self._formats.anchor_name(), self._pool.members())
        return self._formats.newest_anchor(values.values())

    def segments(self, log: bytes, after: int, link: bytes) -> Iterator[Segment]:
        """Every entry after one, with what it claims, until no member that answers has any more.

        Raises: CorruptError: one is missing before a later one, or does not follow on the one before it; or the members
        that answer have a claim, and not what it is for.
        """
        number = after
        while True:
            start, found = number, self._window(log, number + 1)
            while (segment := found.pop(number + 1, None)) is not None:
                if not _follows(segment, link):
                    segment = self._other(log, segment, link)
                segment = self._with_claimed(log, segment)
                number, link = segment.number, link_to(segment.payload)
                yield segment
            if found:
                raise CorruptError(
                    f"entry {number + 1} of the catalog is on no member that answers, though entry {max(found)} is",
                    hint="start the members that are missing, and run this again",
                )
            if number < start + SEGMENTS_AHEAD:
                return

    def _other(self, log: bytes, segment: Segment, link: bytes) -> Segment:
        """The copy of an entry that does follow on the one before it, should members have different ones."""
        for value in self._pool.read_each(
            self._formats.segment_name(log, segment.number), self._pool.members()
        ).values():
            with contextlib.suppress(CorruptError):
                if value is not None and _follows(other := self._formats.open_segment(log, value), link):
                    return other
        raise CorruptError(
            f"entry {segment.number} in the pool does not follow on the entry before it that lies there: the catalog "
            "was written to from an older copy of its log",
            hint="bring back the home that wrote last; its `up` puts its own entries into the pool",
        )

    def _with_claimed(self, log: bytes, segment: Segment) -> Segment:
        claim = claim_in(segment.payload)
        if claim is None:
            return segment
        payload = find_entries(self._pool, self._formats, log, [claim])[0]
        if payload is None:
            raise CorruptError(
                f"entry {segment.number} of the catalog is on no member that answers, though its claim is",
                hint="start the members that are missing, and run this again",
            )
        return replace(segment, payload=payload)

    def claimed_names(self, log: bytes, numbers: range) -> list[bytes]:
        """Under which names entries lie that the segments of these numbers claim."""
        claims = [claim_in(segment.payload) for segment in self._segments(log, numbers).values()]
        return [self._formats.entry_name(log, claim.place) for claim in claims if claim is not None]

    def _window(self, log: bytes, first: int) -> dict[int, Segment]:
        return self._segments(log, range(first, first + SEGMENTS_AHEAD))

    def _segments(self, log: bytes, numbers: range) -> dict[int, Segment]:
        names = {self._formats.segment_name(log, number): number for number in numbers}
        found: dict[int, Segment] = {}

        def accept(name: bytes, value: bytes) -> bool:
            with contextlib.suppress(CorruptError):
                segment = self._formats.open_segment(log, value)
                if segment.number == names[name]:
                    found[segment.number] = segment
                    return True
            return False

        self._pool.find(list(names), accept, SEGMENTS_A_REQUEST)
        return found

    def keys(self, wanted: Iterable[ObjectId]) -> Iterator[tuple[list[KeyRow], int]]:
        """Copies of keys, in portions, each with how many of it were nowhere."""
        iterator = iter(wanted)
        while portion := list(itertools.islice(iterator, KEYS_AHEAD)):
            names = {self._formats.key_name(key_id): key_id for key_id in portion}
            rows: list[KeyRow] = []

            missing = self._pool.find(list(names), partial(self._take_key, names, rows), KEYS_A_REQUEST).missing
            yield rows, len(missing)

    def _take_key(self, names: dict[bytes, ObjectId], rows: list[KeyRow], name: bytes, value: bytes) -> bool:
        with contextlib.suppress(CorruptError):
            row = self._formats.open_key(value)
            if row[0] == names[name]:
                rows.append(row)
                return True
        return False


def _follows(segment: Segment, link: bytes) -> bool:
    """Whether it may stand behind the entry that `link` tells, as far as both are known."""
    return not segment.link or not link or segment.link == link


def missing_members(anchor: Anchor, holding: set[str]) -> list[str]:
    """Members that the network has, and that do not answer or hold nothing."""
    return sorted(MemberId(name) for name in anchor.members if name not in holding)
