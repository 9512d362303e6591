"""The shard store contract on real daemons, each a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fungistor.ids import MemberNumber
from fungistor.pool import MemberSpec
from fungistor.testing.contracts.shard_store import (
    LAYOUT,
    Cluster,
    ShardStoreContract,
    open_pool,
    put,
    sample,
    spec,
    until,
)
from fungistor.zdb.client import Client, Login, MemberError

NAMESPACE, PASSWORD, ADMIN = "shards", "open-sesame", "root"


@dataclass
class Daemon:
    """One process with its folders."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        words = [sys.executable, "-m", "fungistor.zdb.daemon", "--data", f"{self.folder}/data"]
        words += ["--index", f"{self.folder}/index", "--port", str(self.port), "--admin", ADMIN]
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said = [json.loads(self.process.stderr.readline()) for _ in range(2)]
        assert said[-1]["event"] == "daemon.serving", said
        self.port = int(said[-1]["tcp"].rpartition(":")[2])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def admin(self, *words: str) -> None:
        with Client(self.address, Login(admin_password=ADMIN)) as client:
            client.call(*words)

    def make_namespace(self) -> None:
        self.admin("NSNEW", NAMESPACE)
        self.admin("NSSET", NAMESPACE, "password", PASSWORD)
        self.admin("NSSET", NAMESPACE, "public", "0")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stderr is not None
            self.process.stderr.close()
            self.process = None


class DaemonCluster:
    """Six daemons with a private namespace each."""

    def __init__(self, folder: Path) -> None:
        self.daemons = {MemberNumber(number): Daemon(folder / f"m{number:02}") for number in range(1, 7)}
        for daemon in self.daemons.values():
            daemon.start()
        for daemon in self.daemons.values():
            daemon.make_namespace()

    def specs(self) -> list[MemberSpec]:
        return [spec(number, daemon.address, NAMESPACE, PASSWORD) for number, daemon in self.daemons.items()]

    def pause(self, number: MemberNumber) -> None:
        self.daemons[number].signal(signal.SIGSTOP)

    def resume(self, number: MemberNumber) -> None:
        self.daemons[number].signal(signal.SIGCONT)

    def kill(self, number: MemberNumber) -> None:
        self.daemons[number].kill()

    def restart(self, number: MemberNumber) -> None:
        self.daemons[number].start()

    def wipe(self, number: MemberNumber) -> None:
        daemon = self.daemons[number]
        daemon.admin("NSDEL", NAMESPACE)
        daemon.make_namespace()

    def close(self) -> None:
        for daemon in self.daemons.values():
            daemon.kill()


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonCluster]:
    """Six processes for the whole suite: starting them is most of its time."""
    cluster = DaemonCluster(tmp_path_factory.mktemp("members"))
    yield cluster
    cluster.close()


@pytest.mark.slow
class TestRealMembers(ShardStoreContract):
    """What holds for the fake holds for the daemon."""

    @pytest.fixture
    def cluster(self, daemons: DaemonCluster) -> Iterator[Cluster]:
        """The same six for all tests, brought back to life and emptied before each."""
        for number, daemon in daemons.daemons.items():
            if daemon.process is None:
                daemon.start()
            daemons.resume(number)
            until(lambda daemon=daemon: _answers(daemon))  # type: ignore[misc]
            daemons.wipe(number)
        yield daemons
        for daemon in daemons.daemons.values():
            if daemon.process is not None:
                daemon.signal(signal.SIGCONT)

    def test_a_range_moves_its_own_bytes(self, daemons: DaemonCluster, cluster: Cluster) -> None:
        """By the member's own counter, 3000 bytes of a shard of 256 KiB cost less than 2 KiB more, INFO included."""
        stripe = sample(201, shard_bytes=256 << 10)
        view = memoryview(bytearray(3000))
        with open_pool(cluster.specs()) as pool:
            put(pool, stripe)
            daemon = daemons.daemons[pool.window(stripe.slot.stripe_id, LAYOUT, 6)[0]]
            before = _sent_bytes(daemon)
            assert pool.fetch_ranges(stripe.slot, [(0, 100_000, view)])
            assert bytes(view) == stripe.shards[0][0][100_000:103_000]
            whole = pool.fetch(stripe.slot, [0])
            after = _sent_bytes(daemon)
            assert bytes(whole.shards[0]) == stripe.shards[0][0]
            assert pool.fetch_ranges(stripe.slot, [(0, 200_000, view)])
            assert _sent_bytes(daemon) - after < 3000 + 2048
        assert after - before > 256 << 10


def _sent_bytes(daemon: Daemon) -> int:
    """What it has sent on all connections."""
    with Client(daemon.address) as client:
        found = re.search(rb"network_tx_bytes: (\d+)", client.call("INFO"))  # type: ignore[arg-type]
    assert found is not None
    return int(found[1])


def _answers(daemon: Daemon) -> bool:
    try:
        daemon.admin("PING")
    except MemberError:
        return False
    return True
