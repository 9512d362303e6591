"""What members see: their folders and every byte on their wires hold nothing of what was published."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import random
import socket
import socketserver
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import tomli_w

from fungistor.dag.cid import CID
from fungistor.dag.multibase import encode_base58
from tests.e2e.running import Up, running
from tests.faults.world import MIB, publish, random_file, seed, small_tree

NAME = "a-very-telling-file-name"
SENTENCE = b"No storage provider is able to read a single byte of this sentence. " * 64


class _Tap(socketserver.BaseRequestHandler):
    """Passes bytes both ways between a command and a member, and keeps a copy."""

    server: _TapServer

    def handle(self) -> None:
        with socket.create_connection(self.server.member) as member:
            back = threading.Thread(target=self._pump, args=(member, self.request), daemon=True)
            back.start()
            self._pump(self.request, member)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.server.keep(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class _TapServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, member: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Tap)
        self.member = member
        self.seen = bytearray()
        self._lock = threading.Lock()

    def keep(self, data: bytes) -> None:
        with self._lock:
            self.seen += data


@contextlib.contextmanager
def tapped(up: Up) -> Iterator[list[_TapServer]]:
    """Put a tap before every member for commands that are started meanwhile."""
    pool_file = up.home / "pool.toml"
    before = pool_file.read_bytes()
    pool = tomllib.loads(before.decode())
    taps: list[_TapServer] = []
    for member in pool["member"]:
        host, _, port = member["address"].rpartition(":")
        taps.append(_TapServer((host, int(port))))
        member["address"] = f"127.0.0.1:{taps[-1].server_address[1]}"
        threading.Thread(target=taps[-1].serve_forever, args=(0.05,), daemon=True).start()
    pool_file.write_bytes(tomli_w.dumps(pool).encode())
    try:
        yield taps
    finally:
        pool_file.write_bytes(before)
        for tap in taps:
            tap.shutdown()
            tap.server_close()


def needles(contents: list[bytes], cids: list[str]) -> dict[str, bytes]:
    """Everything that must not be found: names, pieces of content, hashes in each common spelling."""
    found: dict[str, bytes] = {"name": NAME.encode(), "file name": b"file-17.txt"}
    for number, content in enumerate(contents):
        for place in range(0, len(content) - 24, max(1, len(content) // 40)):
            found[f"content {number} at {place}"] = content[place : place + 24]
    digests = [CID.parse(cid).digest for cid in cids] + [hashlib.sha256(content).digest() for content in contents]
    for number, digest in enumerate(digests):
        multihash = b"\x12\x20" + digest
        found[f"digest {number}"] = digest
        found[f"digest {number} in hex"] = digest.hex().encode()
        found[f"digest {number} in HEX"] = digest.hex().upper().encode()
        found[f"digest {number} in base58"] = encode_base58(multihash).encode()
        for codec in (b"\x01\x55", b"\x01\x70"):
            text = base64.b32encode(codec + multihash).rstrip(b"=")
            found[f"digest {number} in base32, {codec.hex()}"] = text.lower()
            found[f"digest {number} in BASE32, {codec.hex()}"] = text
    return found


def test_folders_and_wires_hold_nothing_of_what_was_published(tmp_path: Path) -> None:
    """No name, no content and no root or leaf hash, in binary, hex, base32 or base58, reaches a member."""
    rng = random.Random(seed())
    (tmp_path / NAME).write_bytes(SENTENCE)
    random_file(tmp_path / "random.bin", 3 * MIB, rng)
    small_tree(tmp_path / "tree", rng)
    leaf = (tmp_path / "random.bin").read_bytes()[:MIB]
    small = next((tmp_path / "tree").rglob("*.txt")).read_bytes()
    with running(tmp_path / "home", ("--members", "20")) as up:
        with tapped(up) as taps:
            lines = publish(up, tmp_path / NAME, tmp_path / "random.bin", tmp_path / "tree")
            cids = [str(line["cid"]) for line in lines]
            for number, cid in enumerate(cids):
                assert up.command("get", "--no-cache", cid, "-o", str(tmp_path / f"out{number}")).returncode == 0
            assert up.command("verify", "--all").returncode == 0
        wires = [bytes(tap.seen) for tap in taps]
        assert sum(map(len, wires)) > 2 * 3 * MIB, "the taps saw nothing"
        folders = [path.read_bytes() for path in (up.home / "members").rglob("*") if path.is_file()]
        secret = needles([SENTENCE, leaf, small], cids)
        for what, needle in secret.items():
            assert not any(needle in wire for wire in wires), f"{what} is on a wire"
            assert not any(needle in folder for folder in folders), f"{what} is in a member's folder"


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """The needles are found where they do lie: in the files themselves."""
    (tmp_path / NAME).write_bytes(SENTENCE)
    found = needles([SENTENCE], ["bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"])
    assert found["content 0 at 0"] in (tmp_path / NAME).read_bytes()
    assert found["digest 0 in base32, 0155"] in b"bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
