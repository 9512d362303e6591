"""Whether a recorded history of publishers and readers is linearizable, with the log's order as the witness.

Each object is a register that holds a manifest. A publish says which manifest it saw; it takes effect if that stands
where it comes to lie in the log, once, however often it was appended. What is checked of the order: every acknowledged
publish is in it; nothing that was acknowledged before another began stands behind it; every outcome told is the one
that the order gives; every read gives what stood at some moment between its start and its end.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NOTHING = ""
"""What a register holds before the first publish."""


@dataclass(frozen=True, slots=True)
class Op:
    """One call. Times are seconds of one machine's monotonic clock; `end` None: its outcome was never told.

    A publish (`name` tells it from all others) wrote `value` against `seen`; `outcome` is ``applied``, ``stands``
    (another manifest does) or ``refused``. A read (`name` empty) gave `value`.
    """

    name: str
    register: str
    value: str
    start: float
    end: float | None
    seen: str = NOTHING
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Logged:
    """A publish as it stands in the log; it may stand there more than once."""

    name: str
    register: str
    value: str
    seen: str


@dataclass(frozen=True, slots=True)
class _Decided:
    place: int
    outcome: str


def problems(history: Sequence[Op], order: Sequence[Logged], final: dict[str, str], effects: int) -> list[str]:
    """All that is wrong, nothing for a linearizable history.

    `final`: what each register holds in the state that the order gave; `effects`: how many publishes changed it.
    """
    decided: dict[str, _Decided] = {}
    values: dict[str, str] = {}
    changes: dict[str, tuple[list[int], list[str]]] = {}
    changed = 0
    for place, entry in enumerate(order):
        if entry.name in decided:
            continue
        outcome = _decide(values.get(entry.register, NOTHING), entry)
        decided[entry.name] = _Decided(place, outcome)
        if outcome == "applied":
            values[entry.register] = entry.value
            places, held = changes.setdefault(entry.register, ([], []))
            places.append(place)
            held.append(entry.value)
            changed += 1
    found = [f"{register} holds {final.get(register)!r}, the log gives {value!r}"
             for register, value in values.items() if final.get(register, NOTHING) != value]  # fmt: skip
    found += [f"{register} holds a value that the log never gave" for register in final if register not in values]
    if changed != effects:
        found.append(f"{effects} publishes changed the state, the log gives {changed}")
    publishes = [op for op in history if op.name]
    found += _told(publishes, decided)
    found += _out_of_order(publishes, decided)
    found += _misread(
        [op for op in history if not op.name and op.end is not None], publishes, decided, changes, len(order)
    )
    return found


def _decide(current: str, entry: Logged) -> str:
    if current == NOTHING:
        return "applied" if entry.seen == NOTHING else "refused"
    return "applied" if entry.seen == current else "stands"


def _told(publishes: Iterable[Op], decided: dict[str, _Decided]) -> Iterable[str]:
    for op in publishes:
        if op.end is None:
            continue
        known = decided.get(op.name)
        if known is None:
            yield f"publish {op.name} was acknowledged and is not in the log"
        elif known.outcome != op.outcome:
            yield f"publish {op.name} was told {op.outcome}, the log gives {known.outcome}"


def _out_of_order(publishes: Sequence[Op], decided: dict[str, _Decided]) -> Iterable[str]:
    """A publish that began after another was acknowledged, and stands before it."""
    ended = sorted((op.end, decided[op.name].place) for op in publishes if op.end is not None and op.name in decided)
    ends = [end for end, _ in ended]
    highest: list[int] = []
    for _, place in ended:
        highest.append(max(place, highest[-1] if highest else -1))
    for op in publishes:
        before = bisect.bisect_left(ends, op.start)
        if op.name in decided and before and highest[before - 1] > decided[op.name].place:
            yield f"publish {op.name} stands before one that was acknowledged when it had not begun"


def _misread(
    reads: Sequence[Op],
    publishes: Sequence[Op],
    decided: dict[str, _Decided],
    changes: dict[str, tuple[list[int], list[str]]],
    length: int,
) -> Iterable[str]:
    """Reads that gave what stood at no place they could have looked at; reads that went back behind earlier ones."""
    ended = sorted((op.end, decided[op.name].place) for op in publishes if op.end is not None and op.name in decided)
    begun = sorted((op.start, decided[op.name].place) for op in publishes if op.name in decided)
    seen: list[tuple[float, int]] = []
    for op in sorted(reads, key=lambda read: read.end or 0.0):
        assert op.end is not None
        # At least behind all that had ended when it began, other reads included; before all that began after its end.
        low = max([place for end, place in ended if end < op.start], default=-1)
        low = max([low, *(place for end, place in seen if end < op.start)])
        high = min([place for start, place in begun if start > op.end], default=length) - 1
        places, held = changes.get(op.register, ([], []))
        first = bisect.bisect_right(places, low) - 1
        last = bisect.bisect_right(places, high) - 1
        candidates = [
            (places[at] if at >= 0 else -1, held[at] if at >= 0 else NOTHING) for at in range(first, last + 1)
        ]
        place = next((max(place, low) for place, value in candidates if value == op.value), None)
        if place is None:
            yield f"a read of {op.register} gave {op.value!r}, which stood at no moment between its start and its end"
        else:
            seen.append((op.end, place))
