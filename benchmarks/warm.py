"""Many requests for the same thing over kept connections, by `wrk`: our gateway, Kubo's, and nginx from its disk.

Files of several sizes as they are; of one size a part, and the question whether it has changed; and a folder's page.
Beside the rates: how long the slowest of 64 clients wait, the first byte of a very long folder, a large file by curl,
and what the processes hold after all that.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import urllib.request
from pathlib import Path

from benchmarks.figures import KIB, MIB, rotated, size_text
from benchmarks.kubo import Kubo
from benchmarks.network import Network
from benchmarks.processes import (
    BenchmarkError,
    accepts,
    curl,
    end,
    first_byte_s,
    free_ports,
    pss_bytes,
    run,
    serve,
    wait_ready,
)  # fmt: skip
from benchmarks.record import NGINX, Key, Record
from benchmarks.setting import Setting
from benchmarks.wide import ENTRIES, write_wide_folder

CONNECTIONS = 16
WARMING_S = 1
MANY_CLIENTS = 64
MANY_CLIENTS_S = 2
WAITING_BYTES = (4 * KIB, 256 * KIB)
LARGEST_BYTES = 16 * MIB
PARTS_OF_BYTES = 256 * KIB
FOLDER = "folder of 100"
FOLDER_FILES = 100
WIDE = "folder of 100,000"
HELD = "memory of all processes, after it"

_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_P99 = re.compile(r"99%\s+([\d.]+)(us|ms|s)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_BAD = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_NGINX = """\
worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def waits_case(size: int) -> str:
    """The name of the case that tells how long the slowest of many clients wait."""
    return f"{size_text(size)}, {MANY_CLIENTS} clients: 99 % wait at most"


class Warm:
    """`warm`."""

    name = "warm"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._seconds = 1 if setting.quick else 2

    def round(self, run: int, record: Record) -> None:
        if "wrk" not in self._setting.peers:
            record.note("`warm` needs wrk on PATH: not measured.")
            return
        sizes = [size for size in sorted(self._setting.sizes) if size <= LARGEST_BYTES]
        large = [size for size in self._setting.sizes if size > LARGEST_BYTES]
        found: list[Network | Kubo | None] = [self._setting.unsynced(), self._setting.kubo()]
        for contender in rotated([each for each in found if each is not None], run):
            with contextlib.ExitStack() as ending:
                ending.callback(contender.end)
                contender.start()
                names = {size: contender.publish(self._setting.file(size)).name for size in (*sizes, *large)}
                folder = contender.publish(self._folder()).name
                wide, car = self._wide()
                contender.take_car(car)
                contender.restart()
                self._first_bytes(contender.name, f"{contender.url(wide)}/", record)
                for size in sizes:
                    self._add(contender.name, size_text(size), contender.url(names[size]), record)
                self._waits(contender.name, {size: contender.url(names[size]) for size in sizes}, record)
                if PARTS_OF_BYTES in names:
                    self._parts(contender.name, contender.url(names[PARTS_OF_BYTES]), record)
                self._add(contender.name, FOLDER, f"{contender.url(folder).rstrip('/')}/", record)
                for size in large:
                    self._large(contender.name, contender.url(names[size]), size, record)
                held = pss_bytes(contender.processes()) / MIB
                record.add(Key("warm", HELD, contender.name, "memory"), held, "MiB")
        if "nginx" in self._setting.peers:
            self._nginx(sizes, record)

    def _nginx(self, sizes: list[int], record: Record) -> None:
        folder = self._setting.folder / "nginx"
        (port,) = free_ports(1)
        root = folder / "root"
        root.mkdir(parents=True)
        large = [size for size in self._setting.sizes if size > LARGEST_BYTES]
        for size in (*sizes, *large):
            os.link(self._setting.file(size), root / str(size))
        # Started by root, it would serve as a user who may not enter a temporary folder.
        user = "user root;\n" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(user + _NGINX.format(folder=folder, port=port, root=root))
        server = serve([self._setting.peers["nginx"], "-c", folder / "nginx.conf", "-p", folder], folder / "out.log")
        with contextlib.ExitStack() as ending:
            ending.callback(shutil.rmtree, folder)
            ending.callback(end, [server])
            wait_ready(lambda: accepts(port), [server], folder / "error.log")
            for size in sizes:
                self._add(NGINX, size_text(size), f"http://127.0.0.1:{port}/{size}", record)
            if PARTS_OF_BYTES in sizes:
                self._parts(NGINX, f"http://127.0.0.1:{port}/{PARTS_OF_BYTES}", record)
            self._waits(NGINX, {size: f"http://127.0.0.1:{port}/{size}" for size in sizes}, record)
            for size in large:
                self._large(NGINX, f"http://127.0.0.1:{port}/{size}", size, record)

    def _folder(self) -> Path:
        folder = self._setting.folder / "warm-folder"
        if not folder.exists():
            folder.mkdir()
            for number in range(FOLDER_FILES):
                (folder / f"file-{number}.txt").write_text(f"{number}\n")
        return folder

    def _wide(self) -> tuple[str, Path]:
        """The CID and the CAR of a folder of many entries."""
        car, cid = self._setting.folder / "wide.car", self._setting.folder / "wide.cid"
        if not cid.exists():
            cid.write_text(write_wide_folder(car, 2000 if self._setting.quick else ENTRIES))
        return cid.read_text(), car

    def _first_bytes(self, contender: str, url: str, record: Record) -> None:
        """The page of a very long folder, never asked for before, and again."""
        record.add(Key("warm", f"{WIDE}: first byte", contender), first_byte_s(url))
        record.add(Key("warm", f"{WIDE}: first byte, again", contender), first_byte_s(url))

    def _waits(self, contender: str, urls: dict[int, str], record: Record) -> None:
        """How long the slowest hundredth of many clients waits."""
        for size in WAITING_BYTES:
            if size not in urls:
                continue
            words = ["-t1", f"-c{MANY_CLIENTS}", f"-d{MANY_CLIENTS_S}s", "--timeout", "30s", "--latency", urls[size]]
            ran = run([self._setting.peers["wrk"], *words])
            found = _P99.search(ran.output)
            if found is None or _BAD.search(ran.output):
                raise BenchmarkError(f"{urls[size]}: {ran.output[-400:]}")
            record.add(Key("warm", waits_case(size), contender), float(found[1]) * _SECONDS[found[2]])

    def _large(self, contender: str, url: str, size: int, record: Record) -> None:
        """A large file by curl: the second time, which some caches take as the sign to keep it, and the third."""
        curl(url, size)
        record.add(Key("warm", f"{size_text(size)} by curl, second time", contender), curl(url, size).seconds)
        record.add(Key("warm", f"{size_text(size)} by curl", contender), curl(url, size).seconds)

    def _parts(self, contender: str, url: str, record: Record) -> None:
        """A part of a file, and the question whether it has changed."""
        size = size_text(PARTS_OF_BYTES)
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as answer:  # noqa: S310  # our own URL
            tag = answer.headers["ETag"]
        self._add(contender, f"{size}, 100 bytes of it", url, record, "Range: bytes=1000-1099")
        self._add(contender, f"{size}, unchanged", url, record, f"If-None-Match: {tag}")

    def _add(self, contender: str, case: str, url: str, record: Record, *fields: str) -> None:
        said = [word for field in fields for word in ("-H", field)]
        words = ["-t1", f"-c{CONNECTIONS}", "--timeout", "30s", *said, url]
        # Unmeasured first: what a server keeps of what was asked for, each of its processes by itself, is kept by then.
        run([self._setting.peers["wrk"], f"-d{WARMING_S}s", *words])
        ran = run([self._setting.peers["wrk"], f"-d{self._seconds}s", *words])
        rate = _RATE.search(ran.output)
        if rate is None or _BAD.search(ran.output):
            raise BenchmarkError(f"{url}: {ran.output[-400:]}")
        record.add(Key("warm", case, contender, "rate"), float(rate[1]), "requests/s")
