"""Many requests for the same thing over kept connections, by `wrk`: our gateway, Kubo's, and nginx from its disk.

Files of several sizes as they are; of one size a part, and the question whether it has changed; and a folder's page.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import urllib.request
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.figures import KIB, MIB, rotated, size_text
from benchmarks.processes import BenchmarkError, accepts, end, free_ports, run, serve, wait_ready
from benchmarks.record import NGINX, Key, Record
from benchmarks.setting import Setting

CONNECTIONS = 16
LARGEST_BYTES = 16 * MIB
PARTS_OF_BYTES = 256 * KIB
FOLDER = "folder of 100"
FOLDER_FILES = 100

_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
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


class Warm:
    """`warm`."""

    name = "warm"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._seconds = 1 if setting.quick else 3

    def round(self, run: int, record: Record) -> None:
        if "wrk" not in self._setting.peers:
            record.note("`warm` needs wrk on PATH: not measured.")
            return
        sizes = [size for size in sorted(self._setting.sizes) if size <= LARGEST_BYTES]
        found: list[Contender | None] = [self._setting.unsynced(), self._setting.kubo()]
        for contender in rotated([each for each in found if each is not None], run):
            with contextlib.ExitStack() as ending:
                ending.callback(contender.end)
                contender.start()
                names = {size: contender.publish(self._setting.file(size)).name for size in sizes}
                folder = contender.publish(self._folder()).name
                contender.restart()
                for size, name in names.items():
                    self._add(contender.name, size_text(size), contender.url(name), record)
                if PARTS_OF_BYTES in names:
                    self._parts(contender.name, contender.url(names[PARTS_OF_BYTES]), record)
                self._add(contender.name, FOLDER, f"{contender.url(folder).rstrip('/')}/", record)
        if "nginx" in self._setting.peers:
            self._nginx(sizes, record)

    def _nginx(self, sizes: list[int], record: Record) -> None:
        folder = self._setting.folder / "nginx"
        (port,) = free_ports(1)
        root = folder / "root"
        root.mkdir(parents=True)
        for size in sizes:
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

    def _folder(self) -> Path:
        folder = self._setting.folder / "warm-folder"
        if not folder.exists():
            folder.mkdir()
            for number in range(FOLDER_FILES):
                (folder / f"file-{number}.txt").write_text(f"{number}\n")
        return folder

    def _parts(self, contender: str, url: str, record: Record) -> None:
        """A part of a file, and the question whether it has changed."""
        size = size_text(PARTS_OF_BYTES)
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as answer:  # noqa: S310  # our own URL
            tag = answer.headers["ETag"]
        self._add(contender, f"{size}, 100 bytes of it", url, record, "Range: bytes=1000-1099")
        self._add(contender, f"{size}, unchanged", url, record, f"If-None-Match: {tag}")

    def _add(self, contender: str, case: str, url: str, record: Record, *fields: str) -> None:
        said = [word for field in fields for word in ("-H", field)]
        words = ["-t1", f"-c{CONNECTIONS}", f"-d{self._seconds}s", "--timeout", "30s", *said, url]
        ran = run([self._setting.peers["wrk"], *words])
        rate = _RATE.search(ran.output)
        if rate is None or _BAD.search(ran.output):
            raise BenchmarkError(f"{url}: {ran.output[-400:]}")
        record.add(Key("warm", case, contender, "rate"), float(rate[1]), "requests/s")
