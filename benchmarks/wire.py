"""The member daemon by itself, by `redis-benchmark`: beside the original 0-db, and redis as the client's limit."""

from __future__ import annotations

import contextlib
import csv
import functools
import shutil
from pathlib import Path

from benchmarks.figures import KIB, rotated, size_text
from benchmarks.network import command
from benchmarks.processes import BenchmarkError, accepts, end, free_ports, run, serve, wait_ready
from benchmarks.record import OURS, ZDB, Key, Record
from benchmarks.setting import Setting

CLIENTS = 50
KEYS_SHARE = 8
"""Each key is written so many times on average, so that hardly a GET meets a key that is not there."""
REQUESTS = {512: 60_000, 64 * KIB: 8_000}
"""Some seconds each; the larger ones write half a GiB."""
PIPELINED = 16

Words = list[str | Path]


class Wire:
    """`wire`."""

    name = "wire"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._divided = 20 if setting.quick else 1

    def round(self, run: int, record: Record) -> None:
        if "redis-benchmark" not in self._setting.peers:
            record.note("`wire` needs redis-benchmark on PATH: not measured.")
            return
        for name in rotated([name for name, words in self._servers(Path(), 0).items() if words], run):
            folder = self._setting.folder / "wire"
            (port,) = free_ports(1)
            folder.mkdir()
            with contextlib.ExitStack() as ending:
                ending.callback(shutil.rmtree, folder)
                server = serve(self._servers(folder, port)[name], folder / "log", cwd=folder)
                ending.callback(end, [server])
                wait_ready(functools.partial(accepts, port), [server], folder / "log")
                for size, requests in REQUESTS.items():
                    self._add(name, port, size, requests // self._divided, 1, record)
                self._add(name, port, 512, REQUESTS[512] // self._divided, PIPELINED, record)

    def _servers(self, folder: Path, port: int) -> dict[str, Words]:
        peers = self._setting.peers
        place: Words = ["--data", folder / "data", "--index", folder / "index"]
        found: dict[str, Words] = {OURS: [*command(), "zdb", *place, "--port", str(port), "--no-sync"]}
        if "zdb" in peers:
            found[ZDB] = [peers["zdb"], *place, "--port", str(port), "--listen", "127.0.0.1"]
        if "redis-server" in peers:
            words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            found["redis, in memory"] = [peers["redis-server"], *words]
        return found

    def _add(self, name: str, port: int, size: int, requests: int, pipeline: int, record: Record) -> None:
        keys = max(1, requests // KEYS_SHARE)
        words = ["-p", port, "-c", CLIENTS, "-n", requests, "-r", keys, "-d", size, "-P", pipeline, "-t", "set,get"]
        ran = run([self._setting.peers["redis-benchmark"], *map(str, words), "--csv"])
        rates = {row[0]: float(row[1]) for row in csv.reader(ran.output.splitlines()) if row[:1] in (["SET"], ["GET"])}
        if set(rates) != {"SET", "GET"}:
            raise BenchmarkError(f"redis-benchmark on {name}: {ran.output[-400:]}")
        for verb, rate in rates.items():
            case = f"{size_text(size)} {verb}{f', {pipeline} at once' if pipeline > 1 else ''}"
            record.add(Key("wire", case, name, "rate"), rate, "requests/s")
