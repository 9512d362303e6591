"""The catalog's log: one contract on the fake in memory and on real files with real processes."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from fungistor.catalog.claims import ClaimCheckLog
from fungistor.catalog.engines import etcd
from fungistor.catalog.engines.etcd import EtcdLog
from fungistor.catalog.engines.etcd_client import EtcdAddress, EtcdClient, packed
from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.log import START, FenceMovedError, Log, Position
from fungistor.catalog.shared_appends import SharedAppends
from fungistor.errors import CorruptError
from fungistor.node.children import wait_until
from fungistor.testing.contracts.log import LogContract, LogWorld
from fungistor.testing.file_deposit import FileDeposit
from fungistor.testing.memory_log import MemoryLog, MemoryLogStore
from tests.contracts.etcd_world import EtcdCluster, etcd_cluster

APPEND = """
import sys
from fungistor.catalog.engines.sqlite import SqliteLog
log = SqliteLog(sys.argv[1])
print(log.append(int(sys.argv[2]), [bytes.fromhex(payload) for payload in sys.argv[3:]]).hex())
log.close()
"""

APPEND_ETCD = """
import sys
from fungistor.catalog.claims import ClaimCheckLog
from fungistor.catalog.engines.etcd import EtcdLog
from fungistor.catalog.engines.etcd_client import EtcdAddress
log = EtcdLog(EtcdAddress((sys.argv[1],), sys.argv[2]))
print(log.append(int(sys.argv[3]), [bytes.fromhex(payload) for payload in sys.argv[4:]]).hex())
log.close()
"""


class MemoryWorld:
    def __init__(self) -> None:
        self.store = MemoryLogStore()

    def open(self) -> Log:
        return MemoryLog(self.store)

    def append_elsewhere(self, fence: int, batch: Sequence[bytes]) -> Position:
        return MemoryLog(self.store).append(fence, batch)


class SqliteWorld:
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.opened: list[SqliteLog] = []

    def open(self) -> Log:
        log = SqliteLog(self.path)
        self.opened.append(log)
        return log

    def append_elsewhere(self, fence: int, batch: Sequence[bytes]) -> Position:
        command = [sys.executable, "-c", APPEND, self.path, str(fence), *(payload.hex() for payload in batch)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        return Position(bytes.fromhex(done.stdout))


class TestMemoryLog(LogContract):
    @pytest.fixture
    def world(self) -> LogWorld:
        return MemoryWorld()

    def test_a_fault_after_the_effect_is_a_doubtful_append(self, world: LogWorld) -> None:
        """The fake can lose the acknowledgement of an append that happened."""
        log = world.open()
        assert isinstance(log, MemoryLog)

        def fault(when: str) -> None:
            if when == "after":
                raise FenceMovedError(expected=0, found=0)

        log.fault = fault
        with pytest.raises(FenceMovedError):
            log.append(0, [b"a"])
        assert [entry.payload for entry in log.read(Position(b""))] == [b"a"]


class TestSqliteLog(LogContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[LogWorld]:
        world = SqliteWorld(tmp_path / "catalog" / "log.db")
        yield world
        for log in world.opened:
            log.close()

    def test_the_file_and_its_folder_are_the_owner_s_alone(self, world: LogWorld) -> None:
        """Nobody else on the machine can open the log."""
        assert isinstance(world, SqliteWorld)
        world.open().epoch()
        path = Path(world.path)
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


class ClaimsWorld:
    def __init__(self, world: LogWorld, folder: Path) -> None:
        self.world = world
        self.deposit = FileDeposit(folder)

    def open(self) -> Log:
        return ClaimCheckLog(self.world.open(), self.deposit, lambda: True, claimed_bytes=0)

    def append_elsewhere(self, fence: int, batch: Sequence[bytes]) -> Position:
        return self.open().append(fence, batch)


class TestLogOfClaims(LogContract):
    """Every entry is a claim in the engine."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> LogWorld:
        return ClaimsWorld(MemoryWorld(), tmp_path / "entries")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """One real etcd for all tests here; each takes a prefix of its own."""
    with etcd_cluster(tmp_path_factory.mktemp("etcd"), 1) as cluster:
        cluster.wait_ready()
        yield cluster


class EtcdWorld:
    def __init__(self, address: EtcdAddress) -> None:
        self.address = address
        self.opened: list[EtcdLog] = []

    def open(self) -> Log:
        log = EtcdLog(self.address)
        self.opened.append(log)
        return log

    def append_elsewhere(self, fence: int, batch: Sequence[bytes]) -> Position:
        command = [sys.executable, "-c", APPEND_ETCD, self.address.endpoints[0], self.address.prefix, str(fence)]
        command += [payload.hex() for payload in batch]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        return Position(bytes.fromhex(done.stdout))


class SharedWorld(SqliteWorld):
    def open(self) -> Log:
        log = super().open()
        return SharedAppends(log, f"{self.path}-appends")


class TestSharedAppends(LogContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[LogWorld]:
        world = SharedWorld(tmp_path / "log.sqlite")
        yield world
        for log in world.opened:
            log.close()


class TestEtcdLog(LogContract):
    prefixes = itertools.count()

    @pytest.fixture
    def world(self, cluster: EtcdCluster) -> Iterator[LogWorld]:
        world = EtcdWorld(cluster.address(f"net{next(self.prefixes)}"))
        yield world
        for log in world.opened:
            log.close()

    def test_what_is_trimmed_leaves_etcd_at_once(
        self, world: LogWorld, cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After 8 MB of entries were trimmed their room is free for what comes, and the last entry is there. Where
        enough is free the disk gets it back."""
        log = world.open()
        url = f"http://127.0.0.1:{cluster.client_ports[0]}/v3/maintenance/status"

        def size(name: str) -> int:
            return int(httpx.post(url, json={}, timeout=30, trust_env=False).json()[name])

        def fill_and_trim() -> None:
            for number in range(16):
                last = log.append(0, [bytes((number,)) * (1 << 19)])
            log.trim(last)

        fill_and_trim()
        first = size("dbSize")
        # It counts what is free when it writes next.
        assert wait_until(lambda: bool(log.append(0, [b"next"])) and size("dbSizeInUse") < 4 << 20, 30, 0.05)
        fill_and_trim()
        assert size("dbSize") < 2 * first
        monkeypatch.setattr(etcd, "FREE_BYTES", 1 << 20)

        def is_given_back() -> bool:
            fill_and_trim()
            return size("dbSize") < 8 << 20

        assert wait_until(is_given_back, 30, 0.05)
        assert [entry.payload[:1] for entry in log.read(log.trimmed())] == [b"\x0f"]

    def test_another_log_in_its_place_is_neither_read_nor_written(self, world: LogWorld) -> None:
        """Whoever has used a log does not go on with another one that was put under its prefix meanwhile."""
        assert isinstance(world, EtcdWorld)
        log = world.open()
        log.append(0, [b"a"])
        before = world.open().identity()
        put = {"key": packed(f"{world.address.prefix}/log/identity".encode()), "value": packed(bytes(16))}
        with contextlib.closing(EtcdClient(world.address)) as client:
            client.ask("kv/put", put)
        for use in (log.last, lambda: list(log.read(START)), lambda: log.append(0, [b"b"])):
            with pytest.raises(CorruptError, match="another log than it did before"):
                use()
        assert log.identity() == before
        assert [entry.payload for entry in world.open().read(START)] == [b"a"]

    def test_networks_on_one_etcd_do_not_see_each_other(self, world: LogWorld, cluster: EtcdCluster) -> None:
        """A prefix that begins like another one is another log, with another identity."""
        assert isinstance(world, EtcdWorld)
        longer = EtcdWorld(cluster.address(f"{world.address.prefix}x"))
        one, other = world.open(), longer.open()
        try:
            one.append(0, [b"mine"])
            assert list(other.read(Position(b""))) == []
            assert one.identity() != other.identity()
        finally:
            other.close()
