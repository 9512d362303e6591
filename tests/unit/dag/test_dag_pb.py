"""The two protobufs: dag-pb blocks and the UnixFS message inside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fungistor.dag import CID, DAG_PB, RAW, Mtime, dag_pb, sha256_multihash, unixfs
from fungistor.dag.dag_pb import PBLink, PBNode
from fungistor.dag.links import links
from fungistor.dag.unixfs import DataType, UnixFS
from fungistor.errors import CorruptError, FungiStorError, InvalidError
from tests.unit.dag.blocks import SAME_EACH_RUN
from tests.unit.dag.test_cid import cids

LEAF = CID(1, RAW, sha256_multihash(b"leaf"))
HASH = b"\x0a\x24" + LEAF.encode()
uint64 = st.integers(0, (1 << 64) - 1)
nodes = st.builds(
    PBNode,
    st.lists(
        st.builds(PBLink, cids, st.none() | st.binary(max_size=200), st.none() | uint64),
        max_size=6,
    ).map(tuple),
    st.none() | st.binary(max_size=300),
)
mtimes = st.builds(Mtime, st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 999_999_999))
messages = st.builds(
    UnixFS,
    st.sampled_from(DataType),
    st.binary(max_size=200),
    st.none() | uint64,
    st.lists(uint64, max_size=9).map(tuple),
    st.none() | uint64,
    st.none() | uint64,
    st.none() | st.integers(1, (1 << 32) - 1),
    st.none() | mtimes,
)


def _framed(link: bytes) -> bytes:
    return b"\x12" + bytes((len(link),)) + link


@SAME_EACH_RUN
@given(nodes)
def test_nodes_round_trip(node: PBNode) -> None:
    """Any node survives its block, and its links are found in order."""
    block = dag_pb.encode(node)
    assert dag_pb.decode(block) == node
    assert links(CID(1, DAG_PB, sha256_multihash(block)), block) == [link.cid for link in node.links]


@SAME_EACH_RUN
@given(cids, st.binary(max_size=200), uint64)
def test_joined_links_are_the_same_bytes(cid: CID, name: bytes, tsize: int) -> None:
    """A link encoded alone stands in the block byte for byte, and its length is known without building it."""
    link = dag_pb.encode_link(cid.encode(), name, tsize)
    assert len(link) == dag_pb.link_bytes(len(cid.encode()), len(name), tsize)
    assert dag_pb.encode_node([link], b"data") == dag_pb.encode(PBNode((PBLink(cid, name, tsize),), b"data"))


def test_both_orders_of_links_and_data_are_read() -> None:
    """Data may stand before or after the links, and absent is told from empty."""
    node = PBNode((PBLink(LEAF, b"", 0),), b"d")
    link = dag_pb.encode_link(LEAF.encode(), b"", 0)
    assert dag_pb.decode(link + b"\x0a\x01d") == node
    assert dag_pb.decode(b"\x0a\x01d" + link) == node
    assert dag_pb.decode(b"").data is None
    assert dag_pb.decode(b"\x0a\x00").data == b""


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (_framed(HASH) + b"\x0a\x01d" + _framed(HASH), "both sides"),
        (b"\x0a\x01d\x0a\x01d", "two data"),
        (b"\x0a\x05d", "ends at byte"),
        (b"\x0a", "no number"),
        (b"\x12\xff", "no number"),
        (b"\x1a\x00", "neither links nor data"),
        (b"\x08\x01", "neither links nor data"),
        (_framed(b"\x12\x00" + HASH), "out of order"),
        (_framed(HASH + b"\x18\x00\x12\x00"), "out of order"),
        (_framed(HASH + HASH), "twice"),
        (_framed(HASH + b"\x12\x00\x12\x00"), "twice"),
        (_framed(HASH + b"\x12\x00\x18\x00\x18\x00"), "twice"),
        (_framed(HASH + b"\x12\x00\x20\x00"), "no field"),
        (_framed(b"\x12\x00\x18\x00"), "without a hash"),
        (_framed(b"\x0a\x00\x12\x00\x18\x00"), "without a valid CID"),
        (_framed(b"\x0a\x24" + LEAF.encode()[:-1]), "cut off"),
        (_framed(b""), "without a hash"),
        (_framed(HASH + b"\x12\x05ab"), "cut off"),
        (_framed(b"\x0a\x02\x01\x55\x12\x00\x18\x00"), "without a valid CID"),
    ],
)
def test_malformed_blocks_are_refused(block: bytes, why: str) -> None:
    """Each way to break a dag-pb block is corrupt, and the message says which."""
    with pytest.raises(CorruptError, match=why):
        dag_pb.decode(block)


def test_link_never_reads_past_its_end() -> None:
    """Fields that would run into the next link are cut off, not read from it."""
    whole = dag_pb.encode_link(LEAF.encode(), b"n", 5)
    short = _framed(b"\x0a\x24" + LEAF.encode() + b"\x12\x03n")
    with pytest.raises(CorruptError, match="cut off"):
        dag_pb.decode(short + whole)


@SAME_EACH_RUN
@given(st.binary(max_size=120))
def test_blocks_never_crash(block: bytes) -> None:
    """Any bytes are a node or corrupt."""
    try:
        dag_pb.decode(block)
    except CorruptError:
        return


@SAME_EACH_RUN
@given(nodes, st.data())
def test_damaged_blocks_never_crash(node: PBNode, data: st.DataObject) -> None:
    """A node with some bytes changed is another node or corrupt."""
    block = bytearray(dag_pb.encode(node))
    for _ in range(min(len(block), 3)):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    try:
        dag_pb.decode(bytes(block))
    except CorruptError:
        return


@SAME_EACH_RUN
@given(messages)
def test_messages_round_trip(message: UnixFS) -> None:
    """Any UnixFS message survives its encoding, times before 1970 included, read from bytes or a view."""
    data = unixfs.encode(message)
    assert unixfs.decode(data) == message
    assert unixfs.decode(memoryview(data)) == message


@SAME_EACH_RUN
@given(st.binary(max_size=300), st.none() | st.integers(0, 0o7777), st.none() | mtimes)
def test_leaf_is_the_same_block_as_by_the_general_way(data: bytes, mode: int | None, mtime: Mtime | None) -> None:
    """The one-join encoding of a file's leaf equals the general encoder's."""
    message = UnixFS(DataType.FILE, data, len(data), mode=mode, mtime=mtime)
    assert unixfs.encode_file(data, mode, mtime) == dag_pb.encode_node((), unixfs.encode(message))


def test_messages_are_read_as_protobuf_is() -> None:
    """Any field order, packed block sizes, unknown fields and the last of repeated numbers are accepted."""
    assert unixfs.decode(b"\x18\x05\x08\x02\x18\x03\x22\x02\x01\x02") == UnixFS(
        DataType.FILE, file_bytes=3, block_sizes=(1, 2)
    )
    unknown = b"\x50\x07" + b"\x5a\x02ab" + b"\x61" + bytes(8) + b"\x6d" + bytes(4)
    assert unixfs.decode(unknown + b"\x08\x01") == UnixFS(DataType.DIRECTORY)
    time_with_unknown = b"\x08\x01\x42\x06\x18\x01\x08\x05\x22\x00"
    assert unixfs.decode(time_with_unknown).mtime == Mtime(5)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no known type"),
        (b"\x18\x01", "no known type"),
        (b"\x08\x06", "no known type"),
        (b"\x0a\x01\x02", "wire type"),
        (b"\x08\x02\x10\x01", "wire type"),
        (b"\x08\x02\x1a\x01\x01", "wire type"),
        (b"\x08\x02\x12\x05ab", "ends at byte"),
        (b"\x08\x02\x13", "wire type 3"),
        (b"\x08\x02\x00\x01", "does not exist"),
        (b"\x08\x02\x21" + bytes(8), "wire type"),
        (b"\x08\x02\x40\x01", "wire type"),
        (b"\x08\x02\x42\x00", "without seconds"),
        (b"\x08\x02\x42\x07\x08\x01\x15\x00\x00\x00\x00", "0 nanoseconds"),
        (b"\x08\x02\x42\x07\x08\x01\x15\x00\xca\x9a\x3b", "1000000000 nanoseconds"),
    ],
)
def test_malformed_messages_are_refused(data: bytes, why: str) -> None:
    """Each way to break a UnixFS message is corrupt, and the message says which."""
    with pytest.raises(CorruptError, match=why):
        unixfs.decode(data)


@SAME_EACH_RUN
@given(st.binary(max_size=80))
def test_messages_never_crash(data: bytes) -> None:
    """Any bytes are a UnixFS message or corrupt."""
    try:
        unixfs.decode(data)
    except FungiStorError as error:
        assert isinstance(error, CorruptError)


def test_times_that_the_format_cannot_hold_are_invalid() -> None:
    """Nanoseconds of a second or more, and seconds beyond 64 bits, are refused when they are made."""
    for seconds, nanos in ((0, 1_000_000_000), (0, -1), (1 << 63, 0)):
        with pytest.raises(InvalidError):
            Mtime(seconds, nanos)
