"""CARv1: what is written is read back, however it is cut, and what is no CAR is refused by name."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fungistor.dag import CID, DAG_CBOR, DAG_PB, RAW, sha256_multihash, varint
from fungistor.dag.car import (
    CID_BYTES_MAX,
    HEADER_BYTES_MAX,
    SECTION_BYTES_MAX,
    CarDecoder,
    Section,
    encode_header,
    section_head,
)
from fungistor.errors import InvalidError
from fungistor.limits import BLOCK_BYTES_MAX
from tests.unit.dag.blocks import SAME_EACH_RUN

ROOT = CID.parse("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e")
HEADER = bytes.fromhex(
    "3aa265726f6f747381d82a58250001551220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
    "6776657273696f6e01"
)
"""As `ipfs dag export` begins the CAR of "hello world"."""

V2_PRAGMA = bytes.fromhex("0aa16776657273696f6e02")


def cid_of(data: bytes, codec: int = RAW, version: int = 1) -> CID:
    return CID(version, codec, sha256_multihash(data))


@st.composite
def cids(draw: st.DrawFn) -> CID:
    """CIDs of every shape that a section may have: v0, usual, long codecs, short and long digests, identity."""
    codec = draw(st.sampled_from([RAW, DAG_PB, DAG_CBOR, 0x0129, 0x0200, 2**40]))
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return CID(0, DAG_PB, sha256_multihash(draw(st.binary(max_size=4))))
    if kind == 1:
        return CID(1, codec, sha256_multihash(draw(st.binary(max_size=4))))
    digest = draw(st.binary(max_size=128))
    code = draw(st.sampled_from([0, 0x13, 0x1E, 0xB220, 2**50]))
    return CID(1, codec, varint.encode(code) + varint.encode(len(digest)) + digest)


blocks = st.lists(st.tuples(cids(), st.binary(max_size=300)), max_size=12)


def car(roots: list[CID], sections: list[tuple[CID, bytes]]) -> bytes:
    return encode_header(roots) + b"".join(section_head(cid, len(data)) + data for cid, data in sections)


def decoded(data: bytes, sizes: int = 1 << 20) -> tuple[tuple[CID, ...] | None, list[Section]]:
    """Feed a whole file, so many bytes at a time."""
    decoder = CarDecoder()
    found: list[Section] = []
    for start in range(0, len(data), sizes):
        found += decoder.feed(memoryview(data)[start : start + sizes])
    decoder.finish()
    assert decoder.position == len(data)
    return decoder.roots, found


@SAME_EACH_RUN
@given(roots=st.lists(cids(), min_size=1, max_size=40), sections=blocks, piece=st.integers(1, 200))
def test_what_is_written_is_read_back(roots: list[CID], sections: list[tuple[CID, bytes]], piece: int) -> None:
    """Roots and blocks come back in order, whatever the pieces, and each says where its bytes lie."""
    data = car(roots, sections)
    got, found = decoded(data, piece)
    assert got == tuple(roots)
    assert [(section.cid, section.data) for section in found] == sections
    for section in found:
        assert data[section.offset : section.offset + len(section.data)] == section.data


def test_a_header_is_the_one_that_kubo_writes() -> None:
    """The header of one root is Kubo's, byte for byte; of 300 roots it is read back."""
    assert encode_header([ROOT]) == HEADER
    many = [cid_of(b"%d" % number) for number in range(300)]
    assert decoded(encode_header(many))[0] == tuple(many)


@SAME_EACH_RUN
@given(data=st.binary(max_size=300), piece=st.integers(1, 40))
def test_no_bytes_crash_the_decoder(data: bytes, piece: int) -> None:
    """Any bytes are sections or an InvalidError, as a whole file and behind a good header."""
    for whole in (data, HEADER + data):
        try:
            decoded(whole, piece)
        except InvalidError as error:
            assert error.message


@SAME_EACH_RUN
@given(sections=blocks, seed=st.integers(0, 2**32))
def test_no_damage_crashes_the_decoder(sections: list[tuple[CID, bytes]], seed: int) -> None:
    """A CAR with flipped, dropped or doubled bytes gives sections or an InvalidError."""
    chance = random.Random(seed)
    data = bytearray(car([ROOT], sections))
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(3):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + chance.randrange(1, 9)]
            case _:
                data[at:at] = data[at : at + chance.randrange(1, 9)]
        if not data:
            return
    try:
        decoded(bytes(data), chance.randrange(1, 100))
    except InvalidError as error:
        assert error.message


def test_a_cut_file_is_told_from_a_whole_one() -> None:
    """Cut at any byte that is no section's edge, the CAR is refused with the byte; at an edge it is a shorter CAR."""
    sections = [(cid_of(b"one"), b"one"), (cid_of(b"two", DAG_PB, 0), b"two")]
    data = car([ROOT], sections)
    edges = {len(car([ROOT], sections[:count])) for count in range(3)}
    for end in range(1, len(data)):
        if end in edges:
            decoded(data[:end])
            continue
        with pytest.raises(InvalidError, match=f"ends at byte {end}, in the middle of") as caught:
            decoded(data[:end])
        assert "cut off" in caught.value.hint
    with pytest.raises(InvalidError, match="the CAR is empty"):
        decoded(b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (V2_PRAGMA + bytes(40), "a CAR of version 2; only version 1 is read"),
        (b"\x00", "a header of 0 bytes"),
        (varint.encode(HEADER_BYTES_MAX + 1), f"a header of {HEADER_BYTES_MAX + 1} bytes"),
        (b"\xff" * 9, "no length of a section at byte 0: this is no CAR file"),
        (b"\x80\x00", "no length of a section at byte 0: this is no CAR file"),
        (b"\x1f\x8b\x08\x00gzip" + bytes(40), "no CAR file"),
        (b"<!DOCTYPE html><html><body>" + bytes(60), "no CAR file"),
        (b"\x01\xa0", "no map with a version"),
        (b"\x0a\xa1\x67version\xf5", "no map with a version"),
        (b"\x0a\xa1\x67version\x01", "no list of roots"),
        (b"\x11\xa2\x65roots\x80\x67version\x01", "names no roots"),
        (b"\x12\xa2\x65roots\x81\x01\x67version\x01", "no list of roots"),
        (HEADER + b"\x00", "the section at byte 59 has 0 bytes"),
        (HEADER + b"\xff" * 9, "no length of a section at byte 59: the CAR is damaged"),
        (HEADER + varint.encode(SECTION_BYTES_MAX + 1), f"announces {SECTION_BYTES_MAX + 1} bytes; a block has at"),
        (HEADER + varint.encode(2**62), "announces 4611686018427387904 bytes"),
        (HEADER + b"\x05\x01\x55\x12\x20\xaa", "it has 5 bytes, its CID would need 36"),
        (HEADER + b"\x05\x02\x55\x12\x01\xaa", "does not begin with a CID: CID version 2"),
        (HEADER + b"\x06\x01\x55\x12\xff\x01\x00", "a digest of 255 bytes"),
        (HEADER + b"\x04\xff\xff\xff\xff", "does not begin with a CID"),
    ],
)
def test_what_is_no_car_is_refused_by_name(data: bytes, words: str) -> None:
    """Headers, lengths and CIDs that cannot be are told apart, from one piece and from pieces of a byte."""
    for piece in (1 << 20, 1):
        with pytest.raises(InvalidError) as caught:
            decoded(data, piece)
        assert words in caught.value.message


def test_a_block_is_as_long_as_ipfs_allows() -> None:
    """2 MiB is a block, a byte more is none, though the section could hold it beside a shorter CID."""
    data = bytes(BLOCK_BYTES_MAX)
    [section] = decoded(car([ROOT], [(ROOT, data)]))[1]
    assert len(section.data) == BLOCK_BYTES_MAX
    assert BLOCK_BYTES_MAX + 1 + 36 < SECTION_BYTES_MAX == BLOCK_BYTES_MAX + CID_BYTES_MAX
    with pytest.raises(InvalidError, match="has 2097153 bytes, at most 2097152 are possible"):
        decoded(car([ROOT], [(ROOT, data + b"!")]))


def test_a_bomb_is_refused_before_its_bytes_come() -> None:
    """A section that announces too much is refused from its length alone: nothing is gathered for it."""
    decoder = CarDecoder()
    assert decoder.feed(HEADER) == []
    assert decoder.roots == (ROOT,)
    with pytest.raises(InvalidError, match="announces"):
        decoder.feed(varint.encode(1 << 40))
