"""What operators read of a daemon."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from fungistor.errors import InvalidError
from fungistor.zdb.daemon.admin_http import parse_address
from fungistor.zdb.daemon.metrics import NAMESPACES_MAX
from tests.unit.zdb_daemon.harness import daemon, is_root

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABELS = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABELS}(?:,{LABELS})*)\}})? (-?[0-9]+(?:\.[0-9]+)?)")
SUFFIXES = {"counter": "_total", "gauge": "", "info": "_info"}


def _samples(text: str) -> dict[str, float]:
    """Read OpenMetrics text by its rules: TYPE and HELP before samples, families whole, no sample twice, EOF last."""
    assert text.endswith("\n# EOF\n")
    family = kind = ""
    seen: set[str] = set()
    found: dict[str, float] = {}
    for line in text.splitlines()[:-1]:
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert re.fullmatch(NAME, family) and family not in seen and not family.endswith(("_total", "_info"))
            seen.add(family)
        elif line.startswith("# HELP "):
            assert line.split(" ", 3)[2] == family
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample is not None, line
            assert sample[1] == family + SUFFIXES[kind], line
            key, _, _ = line.rpartition(" ")
            assert key not in found
            found[key] = float(sample[3])
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as reply:
        return str(reply.read().decode())


def test_metrics_are_openmetrics_with_bounded_labels(tmp_path: Path) -> None:
    """Each line has its form, counts are right, and of many namespaces only the first hundred have names."""
    address = f"127.0.0.1:{_free_port()}"
    with daemon(tmp_path / "z", "--admin-http", address) as running:
        client = running.client()
        for number in range(NAMESPACES_MAX + 20):
            assert client.call("NSNEW", f'n"{number}') == b"OK"
        client.call("SET", "k", "value")
        assert client.error("nonsense") and client.error("n" * 5000)
        assert _get(f"http://{address}/health") == "ok\n"
        found = _samples(_get(f"http://{address}/metrics"))
        assert found['zdb_namespace_entries{namespace="default"}'] == 1
        assert found['zdb_operations_total{command="set"}'] == 1
        assert found["zdb_connections"] == 1
        assert found["zdb_connections"] < found["zdb_connections_limit"]
        assert sum(name.startswith("zdb_namespace_entries{") for name in found) == NAMESPACES_MAX + 1
        with pytest.raises(urllib.error.HTTPError, match="404"):
            _get(f"http://{address}/other")


def test_a_daemon_with_numbers_stops_and_refuses_wrong_addresses(tmp_path: Path) -> None:
    """It ends cleanly with a half-asked request open, and an address without a form is refused."""
    address = f"127.0.0.1:{_free_port()}"
    with daemon(tmp_path / "z", "--admin-http", address) as running:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(b"GET /met")
            assert running.stop() == 0
        assert "Traceback" not in running.log.read_text()
    for text in ("9000", ":9000", "h:", "h:x", "h:70000"):
        with pytest.raises(InvalidError):
            parse_address(text)


def _status(url: str) -> tuple[int, str]:
    try:
        return 200, _get(url)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.skipif(not is_root(), reason="needs to mount")
def test_health_and_readiness_say_what_is_refused(tmp_path: Path) -> None:
    """On a full disk the daemon is degraded and not ready, with the reason; both pass when there is room again."""
    disk = tmp_path / "z"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], check=True)
    try:
        url = f"http://127.0.0.1:{_free_port()}"
        with daemon(disk, "--admin-http", url.removeprefix("http://")) as running:
            assert _status(f"{url}/ready") == (200, "ready\n")
            (disk / "filler").write_bytes(bytes(38 << 20))
            assert _status(f"{url}/health")[0] == 200
            assert _status(f"{url}/health")[1].startswith("degraded\nthe data disk is full: ")
            code, text = _status(f"{url}/ready")
            assert (code, text.splitlines()[0]) == (503, "not ready")
            assert "the index disk is full" in text
            (disk / "filler").unlink()
            assert _status(f"{url}/ready") == (200, "ready\n")
            assert running.stop() == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_starting_daemon_is_not_ready(tmp_path: Path) -> None:
    """While the hook has not said that it is ready, /health passes and /ready does not."""
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\n[ "$1" != ready ] || while [ ! -e {tmp_path}/go ]; do sleep 0.02; done\n')
    hook.chmod(0o700)
    url = f"http://127.0.0.1:{_free_port()}"
    seen: list[tuple[int, str]] = []

    def watch() -> None:
        while not seen:
            with contextlib.suppress(urllib.error.URLError):
                seen.append(_status(f"{url}/ready"))
        seen.append(_status(f"{url}/health"))
        (tmp_path / "go").touch()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with daemon(tmp_path / "z", "--admin-http", url.removeprefix("http://"), "--hook", str(hook)) as running:
        watcher.join(20)
        assert seen == [(503, "not ready\nit is starting\n"), (200, "ok\n")]
        assert _status(f"{url}/ready") == (200, "ready\n")
        assert running.stop() == 0
