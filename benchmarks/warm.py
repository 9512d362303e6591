"""Many requests for the same file over kept connections, by `wrk`: our gateway, Kubo's, and nginx from its disk."""

from __future__ import annotations

import contextlib
import os
import re
import shutil

from benchmarks.contenders import Contender
from benchmarks.figures import MIB, rotated, size_text
from benchmarks.processes import BenchmarkError, accepts, end, free_ports, run, serve, wait_ready
from benchmarks.record import Key, Record
from benchmarks.setting import Setting

CONNECTIONS = 16
LARGEST_BYTES = 16 * MIB
NGINX = "nginx"

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
                contender.restart()
                for size, name in names.items():
                    self._add(contender.name, size, contender.url(name), record)
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
                self._add(NGINX, size, f"http://127.0.0.1:{port}/{size}", record)

    def _add(self, contender: str, size: int, url: str, record: Record) -> None:
        duration = f"-d{self._seconds}s"
        ran = run([self._setting.peers["wrk"], "-t1", f"-c{CONNECTIONS}", duration, "--timeout", "30s", url])
        rate = _RATE.search(ran.output)
        if rate is None or _BAD.search(ran.output):
            raise BenchmarkError(f"{url}: {ran.output[-400:]}")
        record.add(Key("warm", size_text(size), contender, "rate"), float(rate[1]), "requests/s")
