"""One DAG of every kind, served: what the tests of the response formats ask for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fungistor.dag import dag_pb, ipld
from fungistor.dag.block import Block
from fungistor.dag.car import CarDecoder
from fungistor.dag.cid import CBOR, CID, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW, sha256_multihash
from fungistor.dag.importer import Link
from fungistor.dag.profiles import DEFAULT_PROFILE
from fungistor.dag.walk import resolve
from fungistor.testing.memory_content import MemoryContent, MemorySource, Symlink
from gateway.operations.desk import DeskFiles
from tests.unit.gateway.live import Live, serving

SMALL = dataclasses.replace(
    DEFAULT_PROFILE, name="small", chunk_bytes=256, file_width=3, shard_above_bytes=400, fanout=8
)
"""Chunks of 256 bytes, three links a node, and directories sharded early: deep DAGs of a few blocks."""

MULTI = bytes(range(256)) + b"b" * 256 + b"c" * 256 + b"d" * 256 + b"ee"
JSON_TEXT = b'{"a": "one", "b": [1, 2.5]}'
PLAIN_CBOR = ipld.encode(DAG_CBOR, {"a": 1})


@dataclass(frozen=True, slots=True)
class Site:
    """What is served, and where it is."""

    live: Live
    content: MemoryContent
    tree: CID
    sharded: CID
    sharded_names: tuple[str, ...]
    holed: CID
    hole: CID
    cbor: CID
    json: CID
    plain_json: CID
    plain_cbor: CID

    @property
    def path(self) -> str:
        return f"/ipfs/{self.tree}"

    def at(self, root: CID, path: str = "") -> CID:
        """Return the CID that a path leads to."""
        return resolve(MemorySource(self.content), root, [part for part in path.split("/") if part]).cid

    def block(self, cid: CID) -> bytes:
        return cid.digest if cid.is_identity else self.content.blocks[cid.multihash]

    def car(self, target: str, **headers: str) -> list[CID]:
        """Fetch a CAR, check each of its blocks, and list them in their order."""
        answer = self.live.get(target, **headers)
        assert answer.status_code == 200, answer.text
        decoder = CarDecoder()
        sections = decoder.feed(answer.content)
        decoder.finish()
        for section in sections:
            assert self.block(section.cid) == section.data
        return [section.cid for section in sections]


def put(content: MemoryContent, codec: int, block: bytes) -> CID:
    """Store a block of any codec."""
    cid = CID(1, codec, sha256_multihash(block))
    content.emit(Block(cid, block))
    return cid


@contextmanager
def formats_site(files: DeskFiles | None = None) -> Iterator[Site]:
    """Serve it."""
    content = MemoryContent()
    tree = content.add_tree(
        {
            "ascii.txt": b"hello application/vnd.ipld.raw\n",
            "twice": {"a.txt": b"the same", "b.txt": b"the same"},
            "subdir": {"multi.bin": MULTI, "ą": {"file-źł.txt": b"utf8 name"}},
            "api": {"data.json": JSON_TEXT, "noname": JSON_TEXT},
            "link": Symlink(b"subdir/multi.bin"),
            "up": {"link": Symlink(b"../ascii.txt")},
        },
        SMALL,
    )
    names = tuple(f"{number:03d}.txt" for number in range(40))
    sharded = content.add_tree({name: name.encode() for name in names}, SMALL)
    holed = content.add_file(b"A" * 256 + b"B" * 256 + b"C" * 256, SMALL)
    hole = CID(1, RAW, sha256_multihash(b"B" * 256))
    content.blocks.pop(hole.multihash)
    cbor_leaf = put(content, DAG_CBOR, ipld.encode(DAG_CBOR, {"hello": "world"}))
    multi = resolve(MemorySource(content), tree.cid, ("subdir", "multi.bin")).cid
    cbor = put(
        content,
        DAG_CBOR,
        ipld.encode(DAG_CBOR, {"foo": {"link": cbor_leaf}, "files": {"multi": multi}, "raw": b"\x01\x02"}),
    )
    json_leaf = put(content, DAG_JSON, b'{"hello":"this is not a link"}')
    dag_json = put(content, DAG_JSON, json.dumps({"foo": {"link": {"bar": {"/": str(json_leaf)}}}}).encode())
    with serving(content, files=files) as live:
        yield Site(
            live, content, tree.cid, sharded.cid, names, holed.cid, hole, cbor, dag_json,
            put(content, JSON, JSON_TEXT), put(content, CBOR, PLAIN_CBOR),
        )  # fmt: skip


def directory_of(content: MemoryContent, *links: Link) -> CID:
    """Make a directory of exactly these entries, whatever their names."""
    node = dag_pb.PBNode(tuple(dag_pb.PBLink(link.cid, link.name, link.tsize) for link in links), b"\x08\x01")
    return put(content, DAG_PB, dag_pb.encode(node))
