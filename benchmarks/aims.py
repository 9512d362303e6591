"""What is aimed at, and whether a run met it: pure functions of its record."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import million_keys, small, trees, warm
from benchmarks.figures import KIB, Series, number_text, ratio, series_text, size_text, value_text
from benchmarks.objects import DEAD, HEALTHY
from benchmarks.record import DURABLE, ETCD, KUBO, MACHINE, NGINX, OURS, SQLITE, ZDB, ZSTOR, Record

READY_S = 3.0
MEMORY_MIB = 150.0
SMALL_PUBLISH_S = 0.010
SMALL_READ_S = 0.005
KEY_MEMORY_BYTES = 64.0
COMMIT_RATE = 10_000.0
READABLE_S = 1.0
LOG_BYTES = 400.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One aim: `met` is None where it was not measured, or not at the size it is about."""

    aim: str
    measured: str
    met: bool | None


def judge(record: Record, largest: int) -> list[Verdict]:
    """Hold a record against every aim. `largest` is the size in bytes that stands for 1 GiB."""
    text = size_text(largest)
    verdicts = [
        _times(
            f"publish {text}, not syncing: at least 2 x Kubo", record.series("publish", text, KUBO),
            record.series("publish", text, OURS), 2,
        ),
        _durable(record, text),
        _times(
            "publish the tree: at least 1 x Kubo", record.series("tree", trees.PUBLISH, KUBO),
            record.series("tree", trees.PUBLISH, OURS), 1,
        ),
        _cold(record, text, largest),
        _times(
            f"cold read of {text} with 4 dead: at least 0.9 x healthy", record.series(f"fetch, {HEALTHY}", text, OURS),
            record.series(f"fetch, {DEAD}", text, OURS), 0.9,
        ),
        _times(
            f"publish {text}: at least 10 x zstor's store", record.series("publish", text, ZSTOR),
            record.series("publish", text, OURS), 10,
        ),
        _times(
            f"gateway, {text}: at least 10 x zstor's retrieve", record.series(f"fetch, {HEALTHY}", text, ZSTOR),
            record.series(f"fetch, {HEALTHY}", text, OURS), 10,
        ),
    ]  # fmt: skip
    four = size_text(4 * KIB)
    bounds: list[tuple[str, Series | None, float, str]] = [
        (f"publish {four}, not syncing, inside the command", record.series("small", small.INSIDE, OURS),
         SMALL_PUBLISH_S, "s"),
        (f"publish {four}, durable, inside the command", record.series("small", small.INSIDE, DURABLE),
         SMALL_PUBLISH_S, "s"),
        (f"publish {four}, not syncing, process start and all", record.series("small", small.COMMAND, OURS),
         SMALL_PUBLISH_S, "s"),
        (f"first GET of {four} from a fresh network", record.series("small", small.FIRST, OURS), SMALL_READ_S, "s"),
        (f"GET of {four} never asked for", record.series("small", small.OTHER, OURS), SMALL_READ_S, "s"),
        ("`up` ready, first start", record.series("up", "first start", DURABLE), READY_S, "s"),
        ("`up` ready, second start", record.series("up", "second start", DURABLE), READY_S, "s"),
    ]  # fmt: skip
    verdicts += [_at_most(aim, series, bound, unit) for aim, series, bound, unit in bounds]
    verdicts.append(_memory(record))
    verdicts += [_rates(record, *each) for each in _RATES]
    verdicts += [_sooner(record, *each) for each in (*_SECONDS, (f"{text} by curl", 1.5))]
    verdicts.append(
        _times(
            f"wire, {million_keys.OPEN}: at most 4 x 0-db's time", record.series("wire", million_keys.OPEN, ZDB),
            record.series("wire", million_keys.OPEN, OURS), 0.25,
        )
    )  # fmt: skip
    of_a_key = record.series("wire", million_keys.MEMORY, OURS, "memory")
    verdicts.append(_at_most(f"wire, {million_keys.MEMORY}", of_a_key, KEY_MEMORY_BYTES, "B"))
    return [*verdicts, *_of_the_catalog(record)]


_RATES: list[tuple[str, str, str, float]] = [
    ("warm", "4 KiB", KUBO, 5), ("warm", "4 KiB", NGINX, 1), ("warm", "256 KiB", KUBO, 3),
    ("warm", "16 MiB", KUBO, 1.5), ("warm", "256 KiB, 100 bytes of it", KUBO, 2),
    ("warm", "256 KiB, unchanged", KUBO, 2), ("warm", "folder of 100", KUBO, 2),
    ("wire", "512 B SET", ZDB, 1.5), ("wire", "512 B GET", ZDB, 0.8),
    ("wire", "64 KiB SET", ZDB, 1.2), ("wire", "64 KiB GET", ZDB, 1.5),
    ("wire", "1 MiB SET", ZDB, 1.2), ("wire", "1 MiB GET", ZDB, 1.5),
    ("wire", "512 B SET, 16 at once", ZDB, 6), ("wire", "512 B GET, 16 at once", ZDB, 6),
    ("wire", "64 KiB SET, 16 at once", ZDB, 1), ("wire", "64 KiB GET, 16 at once", ZDB, 1),
    ("wire", "512 B SET, --sync, 20 clients", ZDB, 5),
]  # fmt: skip
"""Benchmark, case, peer, and how many times its requests a second ours must answer at least."""


def _of_the_catalog(record: Record) -> list[Verdict]:
    verdicts = []
    for engine in (SQLITE, ETCD):
        found = {key.quantity: Series(tuple(values)) for key, values in record.values.items()
                 if (key.benchmark, key.contender) == ("catalog", engine)}  # fmt: skip
        aim = f"catalog on {engine}, small objects committed: at least {number_text(COMMIT_RATE)} objects/s"
        rate = found.get("commit")
        verdicts.append(
            Verdict(aim, "not measured", None)
            if rate is None
            else Verdict(aim, series_text(rate, "objects/s"), rate.median >= COMMIT_RATE)
        )
        late = found.get("readable elsewhere, p99")
        verdicts.append(_at_most(f"catalog on {engine}, p99 until a second node has it", late, READABLE_S, "s"))
        size = found.get("bytes of an object in the log")
        verdicts.append(_at_most(f"catalog on {engine}, an object in the log", size, LOG_BYTES, "B"))
    return verdicts


_SECONDS: list[tuple[str, float]] = [
    (f"{warm.WIDE}: first byte", 10),
    *((warm.waits_case(size), 1) for size in warm.WAITING_BYTES),
]
"""Of `warm`: a case, and how many times sooner than Kubo ours must be at least."""


def _sooner(record: Record, case: str, least: float) -> Verdict:
    aim = f"warm, {case}: at least {number_text(least)} x sooner than {KUBO}"
    return _times(aim, record.series("warm", case, KUBO), record.series("warm", case, OURS), least)


def _rates(record: Record, benchmark: str, case: str, peer: str, least: float) -> Verdict:
    aim = f"{benchmark}, {case}: at least {number_text(least)} x {peer}"
    ours, theirs = (record.series(benchmark, case, contender, "rate") for contender in (OURS, peer))
    times = ratio(ours, theirs)
    if times is None or ours is None or theirs is None:
        return Verdict(aim, "not measured", None)
    measured = f"{number_text(times)} x: {series_text(ours, 'requests/s')} against {series_text(theirs, 'requests/s')}"
    return Verdict(aim, measured, times >= least)


def _times(aim: str, theirs: Series | None, ours: Series | None, least: float) -> Verdict:
    """Ours must take at most 1/least of their seconds, medians compared."""
    times = ratio(theirs, ours)
    if times is None or theirs is None or ours is None:
        return Verdict(aim, "not measured", None)
    measured = f"{number_text(times)} x: {series_text(ours, 's')} against {series_text(theirs, 's')}"
    return Verdict(aim, measured, times >= least)


def _durable(record: Record, text: str) -> Verdict:
    """Compared as seconds a content byte: the disk's are those of 1.25 times the content."""
    aim = f"publish {text}, durable: at least 0.7 x the lesser rate of the disk (1.25 x as much) and our own unsynced"
    ours = record.series("publish", text, DURABLE)
    disk = record.series("limits", "1.25 x the largest file to the disk", MACHINE)
    unsynced = record.series("publish", text, OURS)
    if ours is None or disk is None or unsynced is None:
        return Verdict(aim, "not measured", None)
    slower = max(disk, unsynced, key=lambda series: series.median)
    times = slower.median / ours.median
    of = "the disk" if slower is disk else "unsynced"
    measured = f"{number_text(times)} x: {series_text(ours, 's')} against {series_text(slower, 's')} ({of})"
    return Verdict(aim, measured, times >= 0.7)


def _cold(record: Record, text: str, largest: int) -> Verdict:
    aim = f"cold read of {text} through the gateway: at least 50 % of a core's sha256"
    ours, sha256 = record.series(f"fetch, {HEALTHY}", text, OURS), record.series("limits", "sha256", MACHINE, "rate")
    if ours is None or sha256 is None:
        return Verdict(aim, "not measured", None)
    rate = largest / ours.median / 1e6
    share = rate / sha256.median
    measured = f"{number_text(100 * share)} %: {number_text(rate)} MB/s against {series_text(sha256, 'MB/s')}"
    return Verdict(aim, measured, share >= 0.5)


def _at_most(aim: str, series: Series | None, bound: float, unit: str) -> Verdict:
    aim = f"{aim}: at most {value_text(bound, unit)}"
    if series is None:
        return Verdict(aim, "not measured", None)
    return Verdict(aim, series_text(series, unit), series.median <= bound)


def _memory(record: Record) -> Verdict:
    aim = f"memory of `up` and command above idle, in all uses: at most {number_text(MEMORY_MIB)} MiB"
    found = {
        key.case: Series(tuple(values))
        for key, values in record.values.items()
        if key.benchmark == "memory" and key.contender == OURS and key.case != "idle"
    }
    if not found:
        return Verdict(aim, "not measured", None)
    case = max(found, key=lambda name: found[name].high)
    return Verdict(aim, f"{number_text(found[case].high)} MiB ({case})", found[case].high <= MEMORY_MIB)
