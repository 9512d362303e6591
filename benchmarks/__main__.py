"""`python -m benchmarks [NAME...]`: run benchmarks in interleaved rounds, print the report, keep it as JSON beside."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.aims import judge
from benchmarks.catalog import Catalog
from benchmarks.figures import KIB, MIB, parse_size, size_text
from benchmarks.machine import Limits, describe
from benchmarks.many import Many
from benchmarks.memory import Memory
from benchmarks.objects import Objects, SameProfile
from benchmarks.processes import BenchmarkError
from benchmarks.record import Record
from benchmarks.report import as_json, json_text, markdown
from benchmarks.setting import PEERS, Benchmark, Setting, find_peers
from benchmarks.small import Small, Up
from benchmarks.trees import Trees
from benchmarks.warm import Warm
from benchmarks.wire import Wire

NAMES = ("limits", "up", "small", "publish", "fetch", "tree", "memory", "warm", "wire", "catalog", "many")
SIZES = "4K,256K,16M,1G"
QUICK_SIZES = "4K,2M"
LIMIT_BYTES = 256 * MIB
DEFAULT_REPORT = Path("build/benchmarks.md")


def main(words: Sequence[str]) -> int:
    """Run what the words ask for."""
    options = _parse(words)
    names = [name for name in NAMES if name in (options.names or NAMES)]
    record = Record()
    started = time.time()
    about = describe()
    with tempfile.TemporaryDirectory(prefix="fungistor-bench-", ignore_cleanup_errors=True) as place:
        setting = _setting(options, Path(place))
        failed = _run(names, setting, options.runs, record)
    about["benchmarks"] = f"{', '.join(names)}; {options.runs} runs, interleaved, in {time.time() - started:,.0f} s"
    about["run ended"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    missing = [name for name in PEERS if name not in setting.peers]
    verdicts = judge(record, max(setting.sizes))
    text = markdown(record, verdicts, about, missing, options.remark)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(text)
    beside = options.report.with_suffix(".json")
    beside.write_text(json_text(as_json(record, verdicts, about, missing)))
    print(text)
    _say(f"written: {options.report}, {beside}")
    return 1 if failed else 0


def _run(names: Sequence[str], setting: Setting, runs: int, record: Record) -> bool:
    """Go through all benchmarks in each round, so that a noisy minute does not fall on one of them alone."""
    benchmarks = _make(names, setting)
    failed = False
    for run in range(runs):
        for benchmark in benchmarks:
            _say(f"run {run + 1} of {runs}: {benchmark.name}")
            try:
                benchmark.round(run, record)
            except BenchmarkError as error:
                # The others are measured all the same: an hour's run must not be lost to one peer's bad moment.
                failed = True
                _say(f"{benchmark.name}: {error}")
                record.note(f"`{benchmark.name}` failed in run {run + 1}: {_one_line(error, setting)}")
    return failed


def _make(names: Sequence[str], setting: Setting) -> list[Benchmark]:
    largest = max(setting.sizes)
    makers: dict[str, Callable[[], Benchmark]] = {
        "limits": lambda: Limits(setting.folder, MIB if setting.quick else LIMIT_BYTES, largest),
        "up": lambda: Up(setting),
        "small": lambda: Small(setting),
        "tree": lambda: Trees(setting),
        "memory": lambda: Memory(setting),
        "warm": lambda: Warm(setting),
        "wire": lambda: Wire(setting),
        "catalog": lambda: Catalog(setting),
        "many": lambda: Many(setting),
    }
    made = [makers[name]() for name in names if name in makers]
    publish, fetch = "publish" in names, "fetch" in names
    if publish or fetch:
        made.append(Objects(setting, publish=publish, fetch=fetch))
    if publish:
        made.append(SameProfile(setting))
    return made


def _setting(options: argparse.Namespace, folder: Path) -> Setting:
    peers = {} if options.no_peers else find_peers()
    sizes = tuple(sorted(set(options.sizes)))
    if not options.quick:
        return Setting(folder, sizes, quick=False, peers=peers)
    return Setting(folder, sizes, quick=True, peers=peers, members=6, tree_files=120, tree_bytes=120 * 8 * KIB)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all unless said: {' '.join(NAMES)}")
    parser.add_argument("--runs", type=_runs, metavar="N", help="rounds (5)")
    parser.add_argument("--sizes", type=_sizes, metavar="S,S", help=f"files' sizes ({SIZES})")
    parser.add_argument("--quick", action="store_true", help="a minute's trial on tiny contents: no figures to quote")
    parser.add_argument("--no-peers", action="store_true", help="leave out every peer, also those on PATH")
    parser.add_argument("--report", type=Path, default=DEFAULT_REPORT, metavar="F.md", help=f"({DEFAULT_REPORT})")
    parser.add_argument("--remark", action="append", default=[], help="a sentence for the head of the report")
    options = parser.parse_args(words)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    options.runs = options.runs or (1 if options.quick else 5)
    options.sizes = options.sizes or _sizes(QUICK_SIZES if options.quick else SIZES)
    if options.quick:
        options.remark.append(f"A quick trial (largest file {size_text(max(options.sizes))}): no figures to quote.")
    return options


def _sizes(text: str) -> list[int]:
    try:
        return [parse_size(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _runs(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of runs")
    return int(text)


def _one_line(error: BenchmarkError, setting: Setting) -> str:
    return " ".join(str(error).replace(str(setting.folder), "FOLDER").split())[:300]


def _say(text: str) -> None:
    print(f"benchmarks: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
