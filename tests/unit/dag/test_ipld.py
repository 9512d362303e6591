"""DAG-CBOR and DAG-JSON as values, with libipld as the oracle of what is DAG-CBOR."""

from __future__ import annotations

import json
import math
from typing import Any

import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fungistor.dag import CBOR, CID, DAG_CBOR, DAG_JSON, JSON, RAW, ipld, sha256_multihash
from fungistor.dag.links import links
from fungistor.errors import CorruptError
from tests.unit.dag.blocks import SAME_EACH_RUN

LEAF = CID(1, RAW, sha256_multihash(b"leaf"))
LINK = b"\xd8\x2a\x58\x25\x00" + LEAF.encode()

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.binary(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def _of(codec: int, data: bytes) -> CID:
    return CID(1, codec, sha256_multihash(data))


@SAME_EACH_RUN
@given(values)
def test_cbor_values_agree_with_libipld(value: Any) -> None:
    """What libipld writes is read as the value that it was."""
    try:
        data = libipld.encode_dag_cbor(value)
    except (ValueError, OverflowError):
        return  # integers below -2**63 are beyond its writer
    read = ipld.decode(DAG_CBOR, data)
    assert read == libipld.decode_dag_cbor(data)
    assert type(read) is type(value)


@SAME_EACH_RUN
@given(st.binary(max_size=80))
def test_cbor_never_crashes_and_accepts_what_libipld_does(data: bytes) -> None:
    """Any bytes are a value or corrupt, and whatever libipld accepts is accepted."""
    try:
        ipld.decode(DAG_CBOR, data)
    except CorruptError:
        with pytest.raises(ValueError, match="DAG-CBOR"):
            libipld.decode_dag_cbor(data)


@SAME_EACH_RUN
@given(st.text(max_size=60) | values.map(lambda value: json.dumps(value, default=str)))
def test_json_never_crashes(text: str) -> None:
    """Any text is a dag-json value or corrupt."""
    try:
        ipld.decode(DAG_JSON, text.encode("utf-8", "surrogatepass"))
    except CorruptError:
        return


def test_links_are_told_from_bytes_and_kept_in_order() -> None:
    """Links of dag-cbor come in document order, repeated ones repeated; the same bytes as data are no link."""
    plain = b"\x58\x24" + LEAF.encode()
    block = b"\xa2\x61b\x82" + LINK + LINK + b"\x61a" + plain
    assert links(_of(DAG_CBOR, block), block) == [LEAF, LEAF]
    assert ipld.decode(DAG_CBOR, block) == {"b": [LEAF, LEAF], "a": LEAF.encode()}


def test_json_links_and_bytes() -> None:
    """{"/": text} is a link, {"/": {"bytes": base64}} is bytes, and other maps with a slash stay maps."""
    text = f'{{"l": [{{"/": "{LEAF}"}}], "b": {{"/": {{"bytes": "aGk"}}}}, "m": {{"/": 1}}, "n": {{"/": "x", "y": 1}}}}'
    block = text.encode()
    assert ipld.decode(DAG_JSON, block) == {"l": [LEAF], "b": b"hi", "m": {"/": 1}, "n": {"/": "x", "y": 1}}
    assert links(_of(DAG_JSON, block), block) == [LEAF]


def test_codecs_without_links_have_none() -> None:
    """Raw, plain JSON and CBOR, and codecs not known here are leaves, whatever their bytes look like."""
    for codec in (RAW, JSON, CBOR, 0x78):
        assert links(_of(codec, LINK), LINK) == []


def test_old_short_and_long_forms_are_read() -> None:
    """Half and single floats, and integers longer than need be, are read: old writers made them."""
    assert ipld.decode(DAG_CBOR, b"\xf9\x3c\x00") == 1.0
    assert ipld.decode(DAG_CBOR, b"\xfa\x3f\x80\x00\x00") == 1.0
    assert ipld.decode(DAG_CBOR, b"\x18\x01") == 1
    half = ipld.decode(DAG_CBOR, b"\xfb\x3f\xe0" + bytes(6))
    assert isinstance(half, float)
    assert math.isclose(half, 0.5)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "item of 1 bytes"),
        (b"\x00\x00", "behind the end"),
        (b"\x9f\xff", "indefinite"),
        (b"\xff", "simple value"),
        (b"\xf7", "simple value"),
        (b"\x1c", "indefinite"),
        (b"\x62\xff\xff", "UTF-8"),
        (b"\x9b" + b"\xff" * 8, "list of"),
        (b"\xbb" + b"\xff" * 8, "item of"),
        (b"\x5b" + b"\xff" * 8, "item of"),
        (b"\xa1\x01\x01", "no string"),
        (b"\xa2\x61a\x01\x61a\x02", "twice"),
        (b"\xc1\x01", "tag 1"),
        (b"\xd8\x2a\x40", "zero byte"),
        (b"\xd8\x2a\x42\x00\x01", "no CID"),
        (b"\xd8\x2a\x61\x00", "zero byte"),
        (b"\xf9\x7e\x00", "finite"),
        (b"\xf9\x7c\x00", "finite"),
        (b"\x81" * 200 + b"\x00", "deeper"),
        (b"\x81" * 100_000 + b"\x00", "deeper"),
    ],
)
def test_malformed_cbor_is_refused(data: bytes, why: str) -> None:
    """Each way to break dag-cbor is corrupt, and the message says which."""
    with pytest.raises(CorruptError, match=why):
        ipld.decode(DAG_CBOR, data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a": 1, "a": 2}',
        "NaN",
        "[Infinity]",
        '{"/": "nonsense"}',
        '{"/": {"bytes": "a"}}',
        '{"/": {"bytes": "!!!!"}}',
        "[" * 200 + "]" * 200,
        "[" * 100_000 + "]" * 100_000,
        "1" * 5000,
        "\ufeff1",
    ],
)
def test_malformed_json_is_refused(text: str) -> None:
    """Each way to break dag-json is corrupt."""
    with pytest.raises(CorruptError):
        ipld.decode(DAG_JSON, text.encode())


def test_json_that_is_not_utf8_is_refused() -> None:
    """Bytes that are no UTF-8 are corrupt as dag-json."""
    with pytest.raises(CorruptError, match="not a dag-json block"):
        ipld.decode(DAG_JSON, b'"\xff"')


@pytest.mark.parametrize("empty", [b"\x80", b"\xa0"])
def test_a_block_of_nothing_but_empty_lists(empty: bytes) -> None:
    """Lists and maps are counted: a block of two million empty ones would take 150 MiB to hold."""

    def block(count: int) -> bytes:
        return b"\x9a" + count.to_bytes(4, "big") + empty * count

    assert len(ipld.decode(DAG_CBOR, block(ipld.CONTAINERS_MAX - 1))) == ipld.CONTAINERS_MAX - 1  # type: ignore[arg-type]
    with pytest.raises(CorruptError, match="lists and maps"):
        ipld.decode(DAG_CBOR, block(ipld.CONTAINERS_MAX))
