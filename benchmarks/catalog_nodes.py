"""Nodes of the benchmark `catalog`: log, state and keys as a home has them, without a pool.

`python -m benchmarks.catalog_nodes follow|keep|begin FOLDER URL` is one that follows, one that keeps snapshots in its
home, or one that begins with nothing.
Snapshots, and on etcd entries that claims stand for, go to files in the folder, where on a real node they go to
members.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fungistor.catalog.catalog import Catalog, sign
from fungistor.catalog.claims import CLAIM_LEVEL, ClaimCheckLog
from fungistor.catalog.commands import Command, Publish
from fungistor.catalog.engines.etcd import EtcdLog
from fungistor.catalog.engines.etcd_client import EtcdAddress
from fungistor.catalog.engines.etcd_keys import EtcdKeys
from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.issuers import ALL_SCOPES, RegisterIssuer
from fungistor.catalog.log import START, Log
from fungistor.catalog.record import Record, Sizes, own_list_key
from fungistor.catalog.snapshots import Snapshot
from fungistor.catalog.state import State
from fungistor.ids import ObjectId, Revision, SessionId, TenantNumber
from fungistor.keys.mirror import MirroredKeys
from fungistor.keys.ring import SigningKey
from fungistor.keys.store import KeyStore
from fungistor.keys.table import KeyTable
from fungistor.node.snapshots import TAIL_COMMANDS
from fungistor.testing.file_deposit import FileDeposit

NETWORK = b"benchmark of it!"
SIGNER, AUTHORITY = SigningKey(b"n" * 32), SigningKey(b"r" * 32)
SMALL_NAME_BYTES = 68
"""A CID, a dozen letters and a tag."""
ROOT_BYTES = 88
"""Of a root in a stripe that others share, as measured of published files."""

LOOK_S = 0.2
SEE_S = 0.01


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where nodes' folders are, and the log's URL; None: a file in the same place."""

    folder: Path
    url: str | None


@dataclass(frozen=True, slots=True)
class Node:
    """One node's part of the catalog."""

    catalog: Catalog
    keys: KeyStore
    log: Log

    def last_bytes(self) -> int:
        """Bytes of the newest entry."""
        number = int.from_bytes(self.log.last(), "big") - 1
        after = type(START)(number.to_bytes(8, "big")) if number else START
        return sum(len(entry.payload) for entry in self.log.read(after))


@contextlib.contextmanager
def open_node(where: NodePlace, name: str, signer: SigningKey | None = None) -> Iterator[Node]:
    """A node with a folder of its own; the SQLite engine is one home's, so its nodes share a key table."""
    home = where.folder / name
    home.mkdir(exist_ok=True)
    state = State(str(home / "state.sqlite"))
    with contextlib.ExitStack() as stack:
        log: Log
        keys: KeyStore
        if where.url is None:
            log, keys = SqliteLog(str(where.folder / "log.sqlite")), KeyTable(str(where.folder / "keys.sqlite"))
        else:
            address = EtcdAddress((where.url.replace("etcd:", "http:").rsplit("/", 1)[0],), "benchmark")
            log = ClaimCheckLog(
                EtcdLog(address), FileDeposit(where.folder / "entries"), lambda: state.level() >= CLAIM_LEVEL
            )
            keys = MirroredKeys(KeyTable(str(home / "keys.sqlite")), EtcdKeys(address), NETWORK)
        stack.callback(keys.close)
        catalog = Catalog(
            log,
            state,
            is_remote=where.url is not None,
            prepare=keys.follow,
            signer=signer,
            bridge=lambda snapshot: _chunks(where, snapshot),
        )
        stack.callback(catalog.close)
        yield Node(catalog, keys, log)


def register(catalog: Catalog) -> None:
    """Let the writer in, so that every entry is signed and checked."""
    body = RegisterIssuer(AUTHORITY.issuer, SIGNER.issuer, "writer", ALL_SCOPES)
    catalog.commit(sign(Command(SessionId(os.urandom(16)), 0, body), AUTHORITY, 1))


def commands_of(chance: random.Random, count: int) -> list[Command]:
    """Publishes of one session, as small as a small object's."""
    session, start = chance.randbytes(16), chance.randbytes(8)
    return [
        Command(SessionId(session), number, Publish(_record(chance, session + start + number.to_bytes(8, "big"))))
        for number in range(count)
    ]


def _record(chance: random.Random, salt: bytes) -> Record:
    identity = ObjectId(chance.randbytes(32))
    return Record(
        object_id=identity,
        tenant=TenantNumber(0),
        policy="default",
        private=False,
        profile=0,
        sizes=Sizes(size=3000, sealed=3100, stored=4_000, blocks=1, stripes=1),
        manifest=chance.randbytes(ROOT_BYTES),
        salt=salt,
        list_key=own_list_key(identity, salt),
        sealed_name=chance.randbytes(SMALL_NAME_BYTES),
        published=1_790_000_000,
    )


# --- what on a real node lies on members


def _path(where: NodePlace, identity: bytes) -> Path:
    return where.folder / f"snapshot-{identity.hex()}"


def _chunks(where: NodePlace, snapshot: Snapshot) -> Generator[bytes]:
    with open(_path(where, snapshot.id), "rb") as file:
        while head := file.read(8):
            yield file.read(int.from_bytes(head, "big"))


def take_snapshot(where: NodePlace, catalog: Catalog) -> None:
    """Write one, commit it, and trim the log before it."""
    identity = os.urandom(32)
    with catalog.dump() as (head, chunks), open(_path(where, identity), "wb") as file:
        sizes = [file.write(len(chunk).to_bytes(8, "big") + chunk) for chunk in chunks]
        file.flush()
        os.fsync(file.fileno())
    snapshot = Snapshot(identity, head.position, head.applied, head.digest, len(sizes), 10, 20, sum(sizes))
    catalog.commit(Command(SessionId(os.urandom(16)), 0, snapshot))
    catalog.trim(snapshot)
    kept = {_path(where, each.id) for each in catalog.snapshots()}
    for path in where.folder.glob("snapshot-*"):
        if path not in kept:
            path.unlink()


# --- processes


def follow(where: NodePlace) -> None:
    """Follow until a line says how far, then tell what was seen, and how a new node begins. As on a real node another
    process of the home keeps snapshots, and what is applied is read at once, while more is caught up with."""
    seen: list[tuple[int, float]] = []
    wanted: list[int] = []
    ended = threading.Event()

    def listen() -> None:
        wanted.append(int(sys.stdin.readline()))

    def look(catalog: Catalog) -> None:
        while not ended.wait(SEE_S):
            revision = int(catalog.revision)
            if not seen or revision > seen[-1][0]:
                seen.append((revision, time.monotonic()))

    with open_node(where, "follower", SIGNER) as node, _other(where, "keep", stdin=subprocess.PIPE) as keeping:
        looking = threading.Thread(target=look, args=(node.catalog,))
        for thread in (threading.Thread(target=listen, daemon=True), looking):
            thread.start()
        print("ready", flush=True)
        while not wanted or not seen or seen[-1][0] < wanted[0]:
            node.catalog.wait(LOOK_S)
        ended.set()
        looking.join()
        kept, _ = keeping.communicate()
    with _other(where, "begin") as beginning:
        begun, _ = beginning.communicate()
    print(json.dumps({"seen": seen, "memory": _memory(), **json.loads(kept), **json.loads(begun)}))


@contextlib.contextmanager
def _other(where: NodePlace, role: str, *, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "benchmarks.catalog_nodes", role, str(where.folder), where.url or ""]
    with subprocess.Popen(words, stdin=stdin, stdout=subprocess.PIPE, text=True) as process:
        yield process
    if process.returncode:
        raise RuntimeError(f"the process that should {role} failed")


def keep(where: NodePlace) -> None:
    """Keep snapshots of the follower's home until standard input ends."""
    taken: list[float] = []
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    with open_node(where, "follower", SIGNER) as node:
        while not ended.wait(LOOK_S):
            if node.catalog.tail() >= max(TAIL_COMMANDS, node.catalog.objects // 4):
                started = time.monotonic()
                take_snapshot(where, node.catalog)
                taken.append(time.monotonic() - started)
    print(json.dumps({"snapshots": len(taken), "snapshot_s": max(taken, default=0.0), "snapshot_memory": _memory()}))


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def begin(where: NodePlace) -> None:
    """Begin with nothing: how long until all is here, and the memory of that."""
    started = time.monotonic()
    with open_node(where, "new") as node:
        node.catalog.catch_up()
        assert node.catalog.revision > Revision(0)
        took = time.monotonic() - started
    print(json.dumps({"new_s": took, "new_memory": _memory()}))


def main(words: Sequence[str]) -> None:
    """Be a node."""
    role, folder, url = words
    {"follow": follow, "keep": keep, "begin": begin}[role](NodePlace(Path(folder), url or None))


if __name__ == "__main__":
    main(sys.argv[1:])
