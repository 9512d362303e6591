"""Counters and histograms of several processes, added up and told as OpenMetrics.

A process writes its own numbers to a file of `run/gateway/` every second; `up` reads the files of all. What a process
that has ended had counted stays counted for as long as `up` runs.
"""

from __future__ import annotations

import bisect
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fungistor.node.files import read_bounded, write_atomic

BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0)
"""Those of other IPFS gateways, so that one dashboard fits all."""

SERIES_MAX = 2000
"""A process: labels come from bounded sets, and a fault in that must not fill the memory."""

SNAPSHOT_BYTES_MAX = 4 << 20

T = TypeVar("T")
Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]


@dataclass(slots=True)
class Histogram:
    """How often a duration fell into each bucket, and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total_s: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds


@dataclass(slots=True)
class Numbers:
    """What one process counts. Used by one thread, read by another: a number may be a moment old."""

    counters: dict[Series, float] = field(default_factory=dict)
    gauges: dict[Series, float] = field(default_factory=dict)
    histograms: dict[Series, Histogram] = field(default_factory=dict)

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        series = (name, tuple(labels.items()))
        if series in self.counters or len(self.counters) < SERIES_MAX:
            self.counters[series] = self.counters.get(series, 0) + by

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Say how much there is now."""
        series = (name, tuple(labels.items()))
        if series in self.gauges or len(self.gauges) < SERIES_MAX:
            self.gauges[series] = value

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Note a duration."""
        series = (name, tuple(labels.items()))
        if series not in self.histograms:
            if len(self.histograms) >= SERIES_MAX:
                return
            self.histograms[series] = Histogram()
        self.histograms[series].observe(seconds)

    def to_json(self) -> dict[str, object]:
        return {
            "counters": [[name, labels, value] for (name, labels), value in list(self.counters.items())],
            "gauges": [[name, labels, value] for (name, labels), value in list(self.gauges.items())],
            "histograms": [
                [name, labels, histogram.counts, histogram.total_s]
                for (name, labels), histogram in list(self.histograms.items())
            ],
        }

    def add(self, told: Mapping[str, Sequence[Sequence[object]]], *, with_gauges: bool) -> None:
        """Add another process's numbers. Raises ValueError, TypeError, KeyError where they are none."""
        for name, labels, value in told["counters"]:
            self._sum(self.counters, name, labels, value)
        if with_gauges:
            for name, labels, value in told["gauges"]:
                self._sum(self.gauges, name, labels, value)
        for name, labels, counts, total_s in told["histograms"]:
            own = self.histograms.setdefault((str(name), _labels(labels)), Histogram())
            own.counts = [a + int(b) for a, b in zip(own.counts, counts, strict=True)]  # type: ignore[call-overload]
            own.total_s += float(total_s)  # type: ignore[arg-type]

    def _sum(self, into: dict[Series, float], name: object, labels: object, value: object) -> None:
        series = (str(name), _labels(labels))
        into[series] = into.get(series, 0) + float(value)  # type: ignore[arg-type]


def _labels(told: object) -> Labels:
    return tuple((str(key), str(value)) for key, value in told)  # type: ignore[attr-defined]


def save_numbers(folder: str, numbers: Numbers) -> None:
    """Write this process's numbers. Raises OSError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, f"{os.getpid()}.json")
    write_atomic(path, json.dumps(numbers.to_json()).encode(), sync=False)


class Totals:
    """The numbers of all processes that ever wrote to a folder, since this was made."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._ended = Numbers()
        self._lock = threading.Lock()

    def collect(self) -> Numbers:
        """Add everything up. Files of processes that have ended are counted once more, and removed."""
        with self._lock:
            sums = Numbers()
            sums.add(self._ended.to_json(), with_gauges=False)  # type: ignore[arg-type]
            try:
                names = os.listdir(self._folder)
            except OSError:
                return sums
            for name in names:
                pid, _, ending = name.partition(".")
                if ending == "json" and pid.isdigit():
                    self._take(os.path.join(self._folder, name), int(pid), sums)
            return sums

    def _take(self, path: str, pid: int, sums: Numbers) -> None:
        has_ended = not os.path.exists(f"/proc/{pid}")
        try:
            told = json.loads(read_bounded(path, SNAPSHOT_BYTES_MAX) or b"")
            sums.add(told, with_gauges=not has_ended)
            if has_ended:
                self._ended.add(told, with_gauges=False)
                os.unlink(path)
        except (OSError, ValueError, TypeError, KeyError):
            return


def openmetrics(numbers: Numbers, extra_gauges: Iterable[tuple[str, float]] = ()) -> bytes:
    """Render in the OpenMetrics text format."""
    lines: list[str] = []
    for name, family in _families(numbers.counters).items():
        base = name.removesuffix("_total")
        lines.append(f"# TYPE {base} counter")
        lines += [f"{base}_total{_braces(labels)} {_number(value)}" for labels, value in family]
    gauges = dict(numbers.gauges)
    gauges.update({(name, ()): value for name, value in extra_gauges})
    for name, family in _families(gauges).items():
        lines.append(f"# TYPE {name} gauge")
        lines += [f"{name}{_braces(labels)} {_number(value)}" for labels, value in family]
    for name, observed in _families(numbers.histograms).items():
        lines.append(f"# TYPE {name} histogram")
        for labels, histogram in observed:
            lines += _histogram(name, labels, histogram)
    return ("\n".join([*lines, "# EOF"]) + "\n").encode()


def _histogram(name: str, labels: Labels, histogram: Histogram) -> list[str]:
    lines, running = [], 0
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), histogram.counts, strict=True):
        running += count
        lines.append(f"{name}_bucket{_braces((*labels, ('le', bound)))} {running}")
    lines.append(f"{name}_sum{_braces(labels)} {_number(histogram.total_s)}")
    lines.append(f"{name}_count{_braces(labels)} {running}")
    return lines


def _families(series: Mapping[Series, T]) -> dict[str, list[tuple[Labels, T]]]:
    families: dict[str, list[tuple[Labels, T]]] = {}
    for (name, labels), value in sorted(series.items(), key=lambda item: item[0]):
        families.setdefault(name, []).append((labels, value))
    return families


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
