"""Barriers, kills, full disks: what was acknowledged is there, what failed said so and left nothing behind."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fungistor.zdb.daemon.barrier import Barrier
from fungistor.zdb.daemon.namespace import Namespace, Put
from fungistor.zdb.daemon.store import Store
from tests.unit.zdb_daemon.harness import Client, Daemon, ErrorReply, daemon, encode, is_root


def test_waitaof_tells_the_run(tmp_path: Path) -> None:
    """WAITAOF 0 0 0 answers the run id at once, WAITAOF 1 0 0 after a flush; a restart has another id."""
    runs = set()
    for flags in ((), ("--sync",), ("--no-sync",)):
        with daemon(tmp_path, *flags) as server:
            client = server.client()
            head = client.call("WAITAOF", "0", "0", "0")
            assert isinstance(head, list)
            assert head[:2] == [0, 0]
            client.call("SET", "k", os.urandom(100_000))
            assert client.call("WAITAOF", "1", "0", "0") == [1, 0, head[2]]
            assert client.call("WAITAOF", "1", "0", "5000") == [1, 0, head[2]]
            assert client.error("WAITAOF", "1", "0") == "Unexpected arguments"
            assert client.error("WAITAOF", "x", "0", "0") == "Invalid argument"
            runs.add(head[2])
            assert server.stop() == 0
    assert len(runs) == 3


def test_concurrent_barriers_are_grouped(tmp_path: Path) -> None:
    """Many clients that store and ask for a barrier at once are all answered, pipelined commands behind it too."""
    with daemon(tmp_path) as server:
        clients = [server.client() for _ in range(20)]
        for turn in range(5):
            for number, client in enumerate(clients):
                client.sock.sendall(
                    encode("SET", b"%d-%d" % (turn, number), os.urandom(2000))
                    + encode("WAITAOF", "1", "0", "0")
                    + encode("PING")
                )
            for number, client in enumerate(clients):
                assert client.read() == b"%d-%d" % (turn, number)
                flushed = client.read()
                assert isinstance(flushed, list)
                assert flushed[:2] == [1, 0]
                assert client.read() == b"PONG"


def test_sync_acknowledges_in_order(tmp_path: Path) -> None:
    """Under --sync a pipeline of writes, reads and errors is answered in order, whole."""
    with daemon(tmp_path, "--sync") as server:
        client = server.client()
        burst = b""
        expected: list[object] = []
        for number in range(200):
            value = os.urandom(number * 7)
            burst += encode("SET", b"k%d" % number, value) + encode("GET", b"k%d" % number) + encode("NOPE")
            expected += [b"k%d" % number, value, "Command not supported"]
        client.sock.sendall(burst)
        for item in expected:
            reply = client.read()
            assert (str(reply) if isinstance(reply, ErrorReply) else reply) == item


@pytest.fixture
def failing_fsync(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """fdatasync fails while the event is set."""
    failing = threading.Event()
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        if failing.is_set():
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    yield failing


def test_a_failed_fsync_is_never_forgotten(tmp_path: Path, failing_fsync: threading.Event) -> None:
    """After a failed flush the barrier fails, also later, and the namespace takes no writes until a restart."""
    store = Store(str(tmp_path / "d"), str(tmp_path / "i"), datasize=1 << 20, durable=True)
    namespace = store.namespaces[b"default"]

    async def scenario() -> list[bool]:
        loop = asyncio.get_running_loop()
        barrier = Barrier(store, loop, skip=False)
        answers = []
        for fail in (False, True, False):
            (failing_fsync.set if fail else failing_fsync.clear)()
            namespace.put_many([Put(b"k", os.urandom(8), 1)])
            waiter: asyncio.Future[bool] = loop.create_future()
            barrier.request(waiter.set_result)
            answers.append(await waiter)
        barrier.stop()
        return answers

    assert asyncio.run(scenario()) == [True, False, False]
    assert namespace.broken
    refused = namespace.put_many([Put(b"new", b"value", 1)])
    assert [str(answer) for answer in refused] == ["Cannot write data right now"]
    store.close()


def test_a_barrier_covers_rotated_files_and_directories(tmp_path: Path) -> None:
    """What a rotation left behind is flushed with the newest file: all data files and both directories."""
    store = Store(str(tmp_path / "d"), str(tmp_path / "i"), datasize=1 << 20, durable=True)
    namespace = store.namespaces[b"default"]
    namespace.segments.take_unsynced()
    for number in range(5):
        namespace.put_many([Put(b"%d" % number, bytes([number]) * 700_000, 1)])
    unsynced = namespace.segments.take_unsynced()
    assert set(unsynced.files) == {str(tmp_path / "d" / "default" / f"d{number}") for number in range(5)}
    assert set(unsynced.directories) == {str(tmp_path / "d" / "default"), str(tmp_path / "i" / "default")}
    again = namespace.segments.take_unsynced()
    assert (again.files, again.directories, again.newest) == ((), (), 4)
    store.close()


class Writer(threading.Thread):
    """Stores, rewrites and deletes over one connection and remembers what was acknowledged, and what was asked."""

    def __init__(self, client: Client, name: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._name = name
        self._rng = random.Random(seed)
        self.acknowledged: dict[bytes, bytes | None] = {}
        self.asked: tuple[bytes, bytes | None] | None = None

    def run(self) -> None:
        rng = self._rng
        while True:
            key = b"%d-%d" % (self._name, rng.randrange(30))
            if self.acknowledged.get(key) is not None and rng.random() < 0.2:
                value = None
            else:
                value = rng.randbytes(rng.choice([0, 10, 500, 5000, 40_000, 150_000]))
            self.asked = (key, value)
            try:
                reply = self._client.call("DEL", key) if value is None else self._client.call("SET", key, value)
            except (OSError, EOFError, ValueError):
                return
            assert reply in (b"OK", key, None), reply
            self.acknowledged[key] = value


@pytest.mark.parametrize("seed", range(3))
def test_kills_under_load_lose_nothing_acknowledged(tmp_path: Path, seed: int) -> None:
    """After kill -9 at random moments every acknowledged write and deletion holds, and no value is a mixture."""
    kills_under_load(tmp_path, seed, *(("--sync",) if seed == 2 else ()))


@pytest.mark.soak
@pytest.mark.parametrize("flags", [("--sync",), ()], ids=["sync", "default"])
def test_five_hundred_kills_under_load(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """The long form: 500 kills of a daemon, four writers with their histories recorded."""
    for seed in range(1000, 1125):
        home = tmp_path / str(seed)
        kills_under_load(home, seed, *flags)
        shutil.rmtree(home)
    print("500 kills, seeds 1000 to 1124, nothing acknowledged lost, no deletion undone")


def kills_under_load(home: Path, seed: int, *flags: str) -> None:
    """Four times: four writers, a kill at a random moment, a start, and everything acknowledged is looked for."""
    rng = random.Random(seed)
    state: dict[bytes, bytes | None] = {}
    for turn in range(4):
        with daemon(home, "--datasize", "1M", *flags) as server:
            check(server, state)
            writers = [Writer(server.client(), number, seed * 100 + turn * 10 + number) for number in range(4)]
            for writer in writers:
                writer.acknowledged.update({k: v for k, v in state.items() if k.startswith(b"%d-" % writer._name)})
                writer.start()
            threading.Event().wait(rng.uniform(0.05, 0.5))
            server.process.send_signal(signal.SIGKILL)
            for writer in writers:
                writer.join(20)
                assert not writer.is_alive()
            server.kill()
            state = {}
            doubtful = {}
            for writer in writers:
                state.update(writer.acknowledged)
                if writer.asked is not None:
                    doubtful[writer.asked[0]] = writer.asked[1]
        with daemon(home, "--datasize", "1M") as server:
            client = server.client()
            for key, value in doubtful.items():
                found = client.call("GET", key)
                assert found in (state.get(key), value)
                state[key] = found if isinstance(found, bytes) else None
            check(server, state)
            if turn % 2:
                assert server.stop() == 0


def check(server: Daemon, state: dict[bytes, bytes | None]) -> None:
    client = server.client()
    for key, value in state.items():
        assert client.call("GET", key) == value
    assert client.call("DBSIZE") == sum(value is not None for value in state.values())


def full_disk(server: Daemon, client: Client, key_bytes: int) -> None:
    """Fill until refused, then check that reads go on, space given back is used, and nothing torn is left."""
    stored: dict[bytes, bytes] = {}
    refused = ""
    for number in range(2000):
        key, value = b"k%d" % number, os.urandom(key_bytes)
        reply = client.call("SET", key, value)
        if isinstance(reply, ErrorReply):
            refused = str(reply)
            break
        stored[key] = value
    assert refused in ("Cannot write data right now", "Cannot write index right now")
    assert isinstance(client.call("SET", "again", os.urandom(key_bytes)), ErrorReply)
    burst = [encode("SET", b"burst%d" % number, os.urandom(key_bytes)) for number in range(5)]
    client.sock.sendall(b"".join(burst))
    assert all(isinstance(client.read(), ErrorReply) for _ in burst)
    for key, value in stored.items():
        assert client.call("GET", key) == value
    assert server.process.poll() is None


@pytest.mark.parametrize("size", [3000, 100_000])
def test_a_file_size_limit_is_survived(tmp_path: Path, size: int) -> None:
    """When the kernel refuses to let a file grow, writes fail clearly, reads go on, and a restart sees it whole."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))

    with daemon(tmp_path, before=limit) as server:
        client = server.client()
        full_disk(server, client, size)
        count = client.call("DBSIZE")
        assert server.stop() == 0
    with daemon(tmp_path) as server:
        client = server.client()
        assert client.call("DBSIZE") == count
        assert client.call("SET", "life goes on", "here") == b"life goes on"
        assert "dropped" not in server.log.read_text()


@pytest.mark.skipif(not is_root(), reason="mounting a small disk takes root")
@pytest.mark.parametrize("datasize", ["512k", "64M"])
def test_a_full_disk_is_survived(tmp_path: Path, datasize: str) -> None:
    """On a full disk, at a rotation or not, writes fail clearly, reads go on, and writes resume when there is room."""
    home = tmp_path / "disk"
    home.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(home)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        ballast = home / "ballast"
        ballast.write_bytes(bytes(1 << 20))
        with daemon(home, "--datasize", datasize) as server:
            client = server.client()
            full_disk(server, client, 100_000)
            ballast.unlink()
            assert client.call("SET", "resumed", os.urandom(100_000)) == b"resumed"
            count = client.call("DBSIZE")
            server.kill()
        with daemon(home, "--datasize", datasize) as server:
            client = server.client()
            assert client.call("DBSIZE") == count
            assert client.call("CHECK", "resumed") == 1
            assert "dropped" not in server.log.read_text()
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


def test_starts_are_refused_with_the_reason(tmp_path: Path) -> None:
    """A locked folder, a folder that is a file and a taken port are said in one line, exit code not zero."""
    with daemon(tmp_path / "one") as server:
        with pytest.raises(RuntimeError, match="in use by another daemon"):
            Daemon(tmp_path / "one")
        port = server.address.rpartition(":")[2]
        with pytest.raises(RuntimeError, match="cannot listen"):
            Daemon(tmp_path / "two", "--port", port)
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "data").write_text("")
    with pytest.raises(RuntimeError, match="cannot use"):
        Daemon(tmp_path / "three")


def test_unix_socket(tmp_path: Path) -> None:
    """A unix socket serves instead of TCP, and is gone after a clean stop."""
    path = tmp_path / "s"
    with daemon(tmp_path, "--socket", str(path)) as server:
        assert server.address == str(path)
        assert server.client().call("PING") == b"PONG"
        assert server.stop() == 0
    assert not path.exists()


def test_a_namespace_is_typed(tmp_path: Path) -> None:
    """Values in reused buffers are used up before the call returns."""
    store = Store(str(tmp_path / "d"), str(tmp_path / "i"), datasize=1 << 20, durable=False)
    namespace: Namespace = store.namespaces[b"default"]
    buffer = bytearray(os.urandom(100_000))
    kept = bytes(buffer)
    assert namespace.put_many([Put(b"k", memoryview(buffer), 1)]) == [b"k"]
    buffer[:] = bytes(100_000)
    entry = namespace.entry(b"k")
    assert entry is not None
    assert namespace.read(b"k", entry) == kept
    store.close()


@pytest.mark.skipif(not is_root(), reason="mounting a small disk takes root")
@pytest.mark.parametrize("clean", [True, False], ids=["closed", "killed"])
def test_a_read_only_disk_is_served(tmp_path: Path, clean: bool) -> None:
    """On a disk that became read-only, also after a crash with a torn tail and a lost index record, every value
    is served, writes are refused in the original's words, and nothing is changed."""
    home, disk = tmp_path / "z", tmp_path / "disk"
    home.mkdir()
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        for name in ("data", "index"):
            (disk / name).mkdir()
            (home / name).symlink_to(disk / name)
        with daemon(home) as server:
            client = server.client()
            for number in range(20):
                assert client.call("SET", f"key-{number}", bytes([number]) * 1000) == f"key-{number}".encode()
            assert client.call("DEL", "key-0") == b"OK"
            if clean:
                assert server.stop() == 0
            else:
                server.kill()
                index, data = disk / "index" / "default" / "i0", disk / "data" / "default" / "d0"
                os.truncate(index, index.stat().st_size - 50)
                with data.open("ab") as file:
                    file.write(b"torn")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        before = {path: path.read_bytes() for path in sorted(disk.rglob("*")) if path.is_file()}
        with daemon(home) as server:
            client = server.client()
            for number in range(1, 20):
                assert client.call("GET", f"key-{number}") == bytes([number]) * 1000
            assert client.call("GET", "key-0") is None
            assert client.call("DBSIZE") == 19
            for _ in range(2):
                assert client.error("SET", "new", "value") == "Cannot write data right now"
                assert client.error("DEL", "key-1") == "Cannot delete key (data)"
            assert client.error("NSNEW", "other") == "Could not create namespace"
            assert isinstance(client.call("SCAN"), list)
            assert client.call("GET", "key-1") == bytes([1]) * 1000
            assert "read-only" in server.log.read_text()
            with pytest.raises(RuntimeError, match="in use by another daemon"):
                Daemon(home)
            server.stop()
        assert before == {path: path.read_bytes() for path in sorted(disk.rglob("*")) if path.is_file()}
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
