"""The whole quorum killed in the middle of a download: two nodes read on, one of them restarted, publishers go on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from fungistor.node.children import wait_until
from tests.contracts.etcd_world import EtcdCluster, etcd_cluster
from tests.e2e.running import Up, new_home, published, running, waiting_publish

WAIT_S = 60.0
READS = 100
READERS = 8
LARGE_BYTES = 16 << 20
MEMBERS = 6


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    with etcd_cluster(tmp_path / "etcd", 3) as cluster:
        cluster.wait_ready()
        yield cluster


def gives(node: Up, cid: str, content: bytes) -> bool:
    return httpx.get(f"{node.gateway}/ipfs/{cid}", timeout=WAIT_S).content == content


def test_a_dead_quorum_is_felt_by_no_reader(tmp_path: Path, etcd: EtcdCluster) -> None:
    """All three etcd members die in a download and 100 reads, a node restarts meanwhile: every byte comes; waiting
    publishers of both nodes go on by themselves when the members are back."""
    small = {f"small-{number}": random.Random(number).randbytes(3000 + number) for number in range(4)}
    large = os.urandom(LARGE_BYTES)
    for name, content in {**small, "large": large, "late-1": b"late 1\n", "late-2": b"late 2\n"}.items():
        (tmp_path / name).write_bytes(content)
    url = f"etcd://{','.join(f'127.0.0.1:{port}' for port in etcd.client_ports)}/quorum"
    member_words = ("--members", str(MEMBERS), "--no-sync", "--catalog", url)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(running(tmp_path / "first", member_words))
        home, pool = new_home(first, tmp_path / "second"), tmp_path / "pool.toml"
        done = first.command("pool", "export", "-o", str(pool))
        assert done.returncode == 0, done.stderr
        with running(home, ("--pool", str(pool), "--catalog", url)) as second:
            cids = {name: published(first.home, tmp_path / name) for name in small}
            cid = published(home, tmp_path / "large")
            # What the second published has reached the first before the quorum dies.
            assert wait_until(lambda: gives(first, cid, large), WAIT_S, 0.05)

            def read(number: int) -> bool:
                """One of the hundred: every fourth a range of the large one, from nobody's cache."""
                if number % 4:
                    name = f"small-{number % len(small)}"
                    return httpx.get(f"{first.gateway}/ipfs/{cids[name]}", timeout=WAIT_S).content == small[name]
                start = number * (LARGE_BYTES // READS)
                asked = {"Range": f"bytes={start}-{start + 99_999}"}
                answer = httpx.get(f"{first.gateway}/ipfs/{cid}", headers=asked, timeout=WAIT_S)
                return answer.status_code == 206 and answer.content == large[start : start + 100_000]

            digest = hashlib.sha256()
            with httpx.stream("GET", f"{first.gateway}/ipfs/{cid}", timeout=WAIT_S) as download:
                pieces = download.iter_bytes(64 << 10)
                digest.update(next(pieces))
                for number in range(3):
                    etcd.stop(number)
                assert second.end() == 0
                with ThreadPoolExecutor(READERS) as readers:
                    answers = readers.map(read, range(READS))
                    again = stack.enter_context(running(home, ()))
                    assert all(answers)
                for piece in pieces:
                    digest.update(piece)
            assert digest.digest() == hashlib.sha256(large).digest()
        assert gives(again, cid, large)
        waiting = [waiting_publish(at, tmp_path / name) for at, name in ((first.home, "late-1"), (home, "late-2"))]
        for number in range(3):
            etcd.start(number)
        etcd.wait_ready()
        for process, said in zip(waiting, (b"late 1\n", b"late 2\n"), strict=True):
            told, _ = process.communicate(timeout=WAIT_S)
            assert process.returncode == 0
            late = str(json.loads(told)["cid"])
            for node in (first, again):
                assert wait_until(partial(gives, node, late, said), WAIT_S, 0.05)
