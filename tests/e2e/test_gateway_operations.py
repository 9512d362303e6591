"""A whole network's gateway from an operator's side: losses, cache, lists, metrics, reload, drain."""

from __future__ import annotations

import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from fungistor.node.children import wait_until
from tests.e2e.running import Up, running

FIVE = ("m02", "m05", "m09", "m13", "m18")
MIB = 1 << 20


def _published(up: Up, folder: Path, name: str, size: int) -> tuple[str, bytes]:
    data = random.Random(name).randbytes(size)  # which no compression makes smaller
    (folder / name).write_bytes(data)
    return str(up.lines("publish", str(folder / name))[0]["cid"]), data


def test_five_silent_members_are_named_within_the_budget(tmp_path: Path) -> None:
    """With 5 of 20 members stopped by SIGSTOP every request is answered in 30 s, what cannot be read with a 504 that
    says the phase and names the five; what is absent is 404 at once, what was read before is served from the cache."""
    with running(tmp_path / "home", ("--no-sync",)) as up:
        # Files of one block, which lies on all members: nothing of it can be sent before the loss is met.
        cold = [_published(up, tmp_path, f"cold{number}", MIB)[0] for number in range(4)]
        warm, data = _published(up, tmp_path, "warm", 3 * MIB)
        assert httpx.get(f"{up.gateway}/ipfs/{warm}").content == data
        by_name = {process.name(): process for process in up.processes()}
        for name in FIVE:
            by_name[f"fungistor-{name}"].suspend()
        try:
            with ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(lambda number: _timed(f"{up.gateway}/ipfs/{cold[number % 4]}"), range(24)))
            assert max(seconds for _, seconds in answers) < 30
            for answer, _ in answers:
                told = answer.json()
                assert (answer.status_code, told["error"]) == (504, "timeout"), told
                assert told["phase"] in ("manifest", "block"), told
                assert all(name in told["detail"] for name in FIVE), told
                assert int(answer.headers["retry-after"]) > 0
            assert (
                httpx.get(f"{up.gateway}/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy").status_code
                == 404
            )
            assert httpx.get(f"{up.gateway}/ipfs/{warm}").content == data
        finally:
            for name in FIVE:
                by_name[f"fungistor-{name}"].resume()
        assert wait_until(lambda: httpx.get(f"{up.gateway}/ipfs/{cold[0]}").status_code == 200, 30, 0.2)


def _timed(url: str) -> tuple[httpx.Response, float]:
    started = time.monotonic()
    answer = httpx.get(url, headers={"Accept": "application/json"}, timeout=60)
    return answer, time.monotonic() - started


def test_cache_lists_metrics_and_reload(tmp_path: Path) -> None:
    """A purge empties disk and memory; a list blocks what was hot; metrics add up all workers; SIGHUP changes nothing
    that is under way, and SIGTERM lets it end."""
    with running(tmp_path / "home", ("--no-sync", "--members", "6", "--admin", "127.0.0.1:0")) as up:
        cid, data = _published(up, tmp_path, "file", MIB)
        path = f"{up.gateway}/ipfs/{cid}"
        for _ in range(8):
            assert httpx.get(path).content == data
        [kept] = up.lines("cache", "status")
        assert int(str(kept["blocks"])) >= 1
        assert up.lines("status")[0]["cache"] == kept
        [purged] = up.lines("cache", "purge", cid)
        assert int(str(purged["blocks"])) >= 1
        up.lines("cache", "purge")
        assert up.lines("cache", "status")[0]["bytes"] == 0
        assert httpx.get(path).content == data

        def metrics() -> str:
            return httpx.get(f"{up.ready['admin']}/-/metrics").text

        assert wait_until(lambda: 'ipfs_http_gw_responses_total{code="200"} 9' in metrics(), 10, 0.1)
        assert metrics().endswith("# EOF\n")
        assert 'fungistor_members{state="up"} 6' in metrics()
        assert 'fungistor_tenant_objects{tenant="default"} ' in metrics()
        assert httpx.get(f"{up.gateway}/-/metrics").status_code == 404

        lists = up.home / "denylists"
        lists.mkdir()
        (lists / "own.deny").write_text(f"/ipfs/{cid}\n")
        up.process.send_signal(signal.SIGHUP)

        def is_blocked_everywhere() -> bool:
            return all(httpx.get(path).status_code == 410 for _ in range(8))

        assert wait_until(is_blocked_everywhere, 10, 0.1)
        (lists / "own.deny").unlink()
        assert wait_until(lambda: httpx.get(path).status_code == 200, 10, 0.1)


def test_a_drain_lets_a_download_end(tmp_path: Path) -> None:
    """A download under way when SIGTERM comes is whole; new connections are refused meanwhile."""
    with running(tmp_path / "home", ("--no-sync", "--members", "6")) as up:
        cid, data = _published(up, tmp_path, "file", 24 * MIB)
        host, port = up.gateway.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as peer:
            peer.sendall(f"GET /ipfs/{cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            received = bytearray(peer.recv(65536))
            up.process.send_signal(signal.SIGTERM)
            while part := peer.recv(1 << 20):
                received += part
        assert bytes(received).partition(b"\r\n\r\n")[2] == data
        assert up.process.wait(30) == 0
