"""The bytes on disk are the original's, and any other bytes are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.errors import CorruptError
from fungistor.zdb.daemon import format as disk
from tests.vectors import make_zdb

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "tests" / "vectors" / "zdb.json"


def test_vectors_are_what_the_code_writes() -> None:
    """The frozen vectors equal what the format module produces today."""
    assert json.loads(VECTORS.read_text()) == make_zdb.vectors()


def test_the_page_lists_the_vectors() -> None:
    """Every vector stands in the format's page as it is frozen."""
    page = (ROOT / "docs" / "formats" / "zdb.md").read_text()
    for name, value in json.loads(VECTORS.read_text()).items():
        assert str(value) in page, name


@pytest.mark.parametrize(
    ("data", "crc"), [(b"", 0), (b"a", 0x93AD1061), (b"hello", 0xDF03CD79), (b"123456789", 0x58E3FA20)]
)
def test_checksum_is_the_originals(data: bytes, crc: int) -> None:
    """The checksum starts at zero and is not inverted, in one piece and through a buffer."""
    assert disk.checksum(data) == crc
    assert disk.checksum_of(memoryview(bytearray(data))) == crc


@settings(deadline=None, derandomize=True)
@given(st.binary(min_size=0, max_size=100_000))
def test_checksum_of_a_buffer_equals_that_of_bytes(data: bytes) -> None:
    """Summing a buffer in pieces gives what summing it whole does."""
    assert disk.checksum_of(memoryview(bytearray(data))) == disk.checksum(data)


descriptors = st.builds(
    disk.Descriptor,
    name=st.binary(min_size=1, max_size=128),
    password=st.binary(max_size=63),
    maxsize=st.integers(0, (1 << 64) - 1),
    public=st.booleans(),
    worm=st.booleans(),
)


@settings(deadline=None, derandomize=True)
@given(descriptors, st.binary(max_size=9))
def test_descriptor_comes_back(descriptor: disk.Descriptor, leftover: bytes) -> None:
    """A descriptor is read back as written, also before the original's leftovers of a longer one."""
    assert disk.decode_descriptor(disk.encode_descriptor(descriptor) + leftover) == descriptor


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.builds(disk.SegmentMark, *[st.integers(0, (1 << 32) - 1)] * 6), max_size=5).map(tuple),
    st.binary(max_size=80),
    st.integers(0, (1 << 32) - 1),
)
def test_checkpoint_comes_back(segments: tuple[disk.SegmentMark, ...], descriptor: bytes, durable: int) -> None:
    """A checkpoint is read back as written, and no proper prefix of it is believed."""
    data = disk.encode_checkpoint(disk.Checkpoint(segments, descriptor, durable))
    assert disk.decode_checkpoint(data) == disk.Checkpoint(segments, descriptor, durable)
    with pytest.raises(CorruptError):
        disk.decode_checkpoint(data[:-1])


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.binary(max_size=120))
def test_no_bytes_crash_a_decoder(data: bytes) -> None:
    """Any bytes are decoded or refused with a corrupt error, never anything else."""
    for decode in (disk.decode_descriptor, disk.decode_checkpoint):
        try:
            decode(data)
        except CorruptError:
            continue
    disk.parse_data_record(data, 0, 0)
    disk.parse_index_record(data, 0, 0)
