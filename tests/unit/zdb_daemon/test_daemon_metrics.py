"""What operators read of a daemon."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from fungistor.errors import InvalidError
from fungistor.zdb.daemon.metrics import NAMESPACES_MAX, parse_address
from tests.unit.zdb_daemon.harness import daemon

LINE = re.compile(r'(# (TYPE|HELP|EOF).*|[a-z_]+(\{[a-z]+="([^"\\\n]|\\.)*"\})? -?[0-9.]+)')


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
        assert _get(f"http://{address}/health") == "ok\n"
        lines = _get(f"http://{address}/metrics").splitlines()
        assert lines[-1] == "# EOF"
        assert [line for line in lines if not LINE.fullmatch(line)] == []
        assert 'zdb_namespace_entries{namespace="default"} 1' in lines
        assert 'zdb_operations_total{command="set"} 1' in lines
        assert "zdb_connections 1" in lines
        assert sum(line.startswith("zdb_namespace_entries{") for line in lines) == NAMESPACES_MAX + 1
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
