"""What was measured: one list of values for each benchmark, case, contender and quantity."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from benchmarks.figures import Series

Unit = Literal["s", "MiB", "MB/s", "requests/s", "objects/s", "B", ""]

OURS = "fungistor --no-sync"
"""The network of trials, that no peer's lack of fsync puts at a disadvantage."""
DURABLE = "fungistor"
"""The network as it is run: every publish waits for the disks of its members."""
KUBO = "kubo"
ZSTOR = "zstor"
NGINX = "nginx"
ZDB = "0-db"
ZDB_NODELAY = "0-db, TCP_NODELAY on"
"""It does not exist as such: somebody has switched it on by hand."""
MACHINE = "machine"
SQLITE = "sqlite"
ETCD = "etcd"


DIGITS = 6
"""After the point: microseconds."""


@dataclass(frozen=True, slots=True)
class Key:
    """Names one series."""

    benchmark: str
    case: str
    contender: str
    quantity: str = "time"


@dataclass(slots=True)
class Record:
    """All values so far, and what a reader must know beside them."""

    units: dict[Key, Unit] = field(default_factory=dict)
    values: dict[Key, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, key: Key, value: float, unit: Unit = "s") -> None:
        """Add one run's value."""
        self.units[key] = unit
        self.values.setdefault(key, []).append(value)

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)

    def series(self, benchmark: str, case: str, contender: str, quantity: str = "time") -> Series | None:
        """Give a series, or None where nothing was measured."""
        values = self.values.get(Key(benchmark, case, contender, quantity))
        return Series(tuple(values)) if values else None

    def as_json(self) -> list[dict[str, object]]:
        """One object a series."""
        lines: list[dict[str, object]] = []
        for key, values in self.values.items():
            found = Series(tuple(values))
            rounded = [round(value, DIGITS) for value in values]
            summary = {"median": round(found.median, DIGITS), "low": min(rounded), "high": max(rounded)}
            lines.append({**asdict(key), "unit": self.units[key], **summary, "values": rounded})
        return lines
