"""CAR files made for tests: good ones, and every kind of bad one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fungistor.dag import CID, DAG_CBOR, DAG_PB, RAW, Block, dag_pb, sha256_multihash, unixfs
from fungistor.dag.car import encode_header, section_head
from fungistor.dag.unixfs import DataType, UnixFS


def car(roots: Iterable[CID], blocks: Iterable[tuple[CID, bytes]]) -> bytes:
    """A CAR of these roots and blocks, right or wrong."""
    return encode_header(list(roots)) + b"".join(section_head(cid, len(data)) + data for cid, data in blocks)


def cid_of(data: bytes, codec: int = RAW, version: int = 1) -> CID:
    """The CID of a block."""
    return CID(version, codec, sha256_multihash(data))


def identity(data: bytes, codec: int = RAW) -> CID:
    """A CID that holds its block."""
    return CID(1, codec, bytes((0, len(data))) + data)


@dataclass
class Dag:
    """Blocks in the order in which they were made."""

    blocks: dict[CID, bytes] = field(default_factory=dict)

    def put(self, data: bytes, codec: int = RAW, version: int = 1) -> CID:
        """Add a block."""
        cid = cid_of(data, codec, version)
        self.blocks[cid] = data
        return cid

    def emit(self, block: Block) -> None:
        """Add what an importer makes."""
        self.blocks[block.cid] = block.data

    def folder(self, entries: Sequence[tuple[bytes, CID]], version: int = 1) -> CID:
        """A folder with any names at all, in the order given."""
        links = [dag_pb.encode_link(cid.encode(), name, 0) for name, cid in entries]
        return self.put(dag_pb.encode_node(links, unixfs.encode(UnixFS(DataType.DIRECTORY))), DAG_PB, version)

    def file(self, parts: Sequence[bytes], version: int = 1) -> CID:
        """A file of raw parts."""
        links = [dag_pb.encode_link(self.put(part).encode(), b"", len(part)) for part in parts]
        sizes = tuple(map(len, parts))
        return self.put(
            dag_pb.encode_node(links, unixfs.encode(UnixFS(DataType.FILE, b"", sum(sizes), sizes))), DAG_PB, version
        )

    def symlink(self, target: bytes) -> CID:
        """A symbolic link."""
        return self.put(dag_pb.encode_node((), unixfs.encode(UnixFS(DataType.SYMLINK, target))), DAG_PB)

    def list(self, cids: Sequence[CID]) -> CID:
        """A dag-cbor list of links."""
        assert len(cids) < 24
        return self.put(cbor_list(cids), DAG_CBOR)

    def car(self, *roots: CID, without: Iterable[CID] = ()) -> bytes:
        """All blocks but some, as a CAR."""
        left_out = set(without)
        return car(roots, [(cid, data) for cid, data in self.blocks.items() if cid not in left_out])

    def write(self, path: Path, *roots: CID, without: Iterable[CID] = ()) -> str:
        """As `car`, in a file."""
        path.write_bytes(self.car(*roots, without=without))
        return str(path)


def cbor_list(cids: Sequence[CID]) -> bytes:
    """A list of links in DAG-CBOR."""
    links = [b"\xd8\x2a\x58" + bytes([len(cid.encode()) + 1]) + b"\0" + cid.encode() for cid in cids]
    return bytes([0x80 | len(links)]) + b"".join(links)
