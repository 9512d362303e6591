"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.errors import FungiStorError
from fungistor.objects.results import Json


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of one thing. `is_good` None: it cannot be told now. No `next_step`: there is nothing to do."""

    area: str
    is_good: bool | None
    seen: str
    next_step: str = ""

    def to_json(self) -> Json:
        """The keys of `--json`."""
        return {"area": self.area, "ok": self.is_good, "finding": self.seen, "next": self.next_step or None}


def good(area: str, seen: str) -> Finding:
    """All is well."""
    return Finding(area, True, seen)


def bad(area: str, seen: str, next_step: str) -> Finding:
    """Something is to be done."""
    return Finding(area, False, seen, next_step)


def unknown(area: str, seen: str, next_step: str = "") -> Finding:
    """It cannot be told now."""
    return Finding(area, None, seen, next_step)


def of_error(area: str, error: FungiStorError) -> Finding:
    """What an error says, and its hint."""
    return bad(area, error.message, error.hint or "see docs/operating.md")
