"""CIDs in every form, against the multiformats library as oracle."""

from __future__ import annotations

import hashlib
import pickle

import blake3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multiformats import CID as Oracle  # noqa: N811
from multiformats import multibase as oracle_multibase

from fungistor.dag import CID, DAG_CBOR, DAG_PB, RAW, multibase, sha256_multihash, varint, verify
from fungistor.errors import BlockMismatchError, CorruptError, FungiStorError, InvalidError
from tests.unit.dag.blocks import SAME_EACH_RUN

V0 = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
V1 = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
EMPTY_RAW = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"

digests = st.binary(min_size=0, max_size=128)
codecs = st.one_of(st.sampled_from([0x51, 0x55, 0x70, 0x71, 0x72, 0x0129, 0x0200]), st.integers(0, (1 << 63) - 1))
cids = st.one_of(
    st.builds(lambda digest: CID(0, DAG_PB, b"\x12\x20" + digest), st.binary(min_size=32, max_size=32)),
    st.builds(
        lambda codec, code, digest: CID(1, codec, varint.encode(code) + varint.encode(len(digest)) + digest),
        codecs,
        st.integers(0, 1 << 20),
        digests,
    ),
)


def test_versions_of_one_block_differ_but_share_their_multihash() -> None:
    """CIDv0 and CIDv1 of the empty directory are unequal, and `to_v1` leads from one to the other."""
    old, new = CID.parse(V0), CID.parse(V1)
    assert (old.version, new.version) == (0, 1)
    assert old != new
    assert old.multihash == new.multihash
    assert old.to_v1() == new
    assert new.to_v1() is new
    assert str(old) == V0
    assert str(new) == V1
    assert hash(old.to_v1()) == hash(new)


@SAME_EACH_RUN
@given(cids)
def test_binary_form_round_trips(cid: CID) -> None:
    """Any CID survives its binary form and pickling."""
    assert CID.decode(cid.encode()) == cid
    assert CID.parse(cid.encode()) == cid
    assert pickle.loads(pickle.dumps(cid)) == cid


@SAME_EACH_RUN
@given(cids, st.sampled_from(["base32", "base36", "base58btc", "base16"]))
def test_text_round_trips_in_every_base_written(cid: CID, base: str) -> None:
    """Any CID survives its text in each base, in upper case too where the base has one case."""
    text = cid.text(base)
    assert CID.parse(text) == cid
    if cid.version and base in ("base32", "base36"):
        assert CID.parse(text.upper()) == cid


@settings(SAME_EACH_RUN, max_examples=25)
@given(st.binary(min_size=1, max_size=60))
def test_multibase_agrees_with_the_library(data: bytes) -> None:
    """Each alphabet read here reads what the multiformats library writes, the rare ones included."""
    for name in ("base16", "base32", "base32upper", "base36", "base58btc", "base64", "base64url", "base64pad", "base2"):
        assert multibase.decode(oracle_multibase.encode(data, name)) == data
    for name in ("base32z", "base32hex", "base8", "base64urlpad"):
        assert multibase.decode(oracle_multibase.encode(data, name)) == data
    assert "b" + multibase.encode_base32(data) == oracle_multibase.encode(data, "base32")
    assert "k" + multibase.encode_base36(data) == oracle_multibase.encode(data, "base36")
    assert "z" + multibase.encode_base58(data) == oracle_multibase.encode(data, "base58btc")


def test_cids_agree_with_the_library() -> None:
    """Codec, digest and text are those that the multiformats library finds."""
    for text in (V0, V1, EMPTY_RAW, "k51qzi5uqu5djokp3m1keo36hoxtd6u3a1d2rg1camf6al7p3huy63dojlm57c"):
        mine, theirs = CID.parse(text), Oracle.decode(text)
        assert mine.codec == theirs.codec.code
        assert mine.encode() == bytes(theirs)
        assert mine.digest == theirs.raw_digest
        assert mine.hash_code == theirs.hashfun.code


def test_identity_cids_hold_up_to_128_bytes() -> None:
    """An identity CID of 128 bytes is read, one of 129 is refused in text and in binary."""
    full = CID(1, RAW, varint.encode(0) + varint.encode(128) + b"B" * 128)
    assert CID.parse(str(full)).digest == b"B" * 128
    assert CID.parse("bafkqaaa").is_identity
    assert CID.parse("bafkqabtimvwgy3yk").digest == b"hello\n"
    over = CID(1, RAW, varint.encode(0) + varint.encode(129) + b"A" * 129)
    with pytest.raises(InvalidError, match="129 bytes"):
        CID.parse(str(over))
    with pytest.raises(InvalidError, match="129 bytes"):
        CID.decode(over.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Q",
        "QmInvalidCID",
        V0[:-1],
        V0 + "a",
        "z" + V0,  # a CIDv0 takes no multibase prefix
        V1[:-1] + "!",
        V1 + "aaaa",
        "bafy",
        "b" + "a" * 1200,
        "\u212a51qzi5uqu5d",  # the Kelvin sign, whose lower case is k
        "k51_0",
        "f01 55",
        "ſ",
        "🚀",
        "b\u00df",
    ],
)
def test_bad_text_is_refused(text: str) -> None:
    """Text that is no CID is invalid input, whatever is wrong with it."""
    with pytest.raises(InvalidError):
        CID.parse(text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x01\x55",
        b"\x01\x55\x12\x20" + bytes(31),
        b"\x01\x55\x12\x20" + bytes(33),
        b"\x12\x20" + bytes(31),
        b"\x12\x21" + bytes(33),
        b"\x00\x55\x12\x20" + bytes(32),
        b"\x02\x55\x12\x20" + bytes(32),
        b"\x01\xd5\x00\x12\x20" + bytes(32),  # the codec in two bytes where one does
        b"\x01" + b"\xff" * 9 + b"\x01\x12\x20" + bytes(32),
    ],
)
def test_bad_bytes_are_refused(data: bytes) -> None:
    """Bytes that are no CID, or one in other than its shortest form, are invalid."""
    with pytest.raises(InvalidError):
        CID.decode(data)


@SAME_EACH_RUN
@given(st.one_of(st.text(max_size=80), st.binary(max_size=60)))
def test_parsing_never_crashes(source: str | bytes) -> None:
    """Anything at all is a CID or invalid."""
    try:
        cid = CID.parse(source)
    except InvalidError:
        return
    assert CID.parse(str(cid)) == cid


@SAME_EACH_RUN
@given(st.characters(codec="ascii"), st.text(alphabet=st.characters(codec="ascii"), max_size=60))
def test_multibase_never_crashes(prefix: str, rest: str) -> None:
    """Any letters behind any prefix are bytes or invalid, in the library's alphabets too."""
    try:
        multibase.decode(prefix + rest)
    except InvalidError:
        return


@SAME_EACH_RUN
@given(st.integers(0, (1 << 63) - 1), st.binary(max_size=4))
def test_varints_round_trip(value: int, tail: bytes) -> None:
    """Both readers give back what was written and where it ended, and its length is known beforehand."""
    data = varint.encode(value)
    assert varint.encoded_bytes(value) == len(data)
    assert varint.decode(data + tail, 0) == (value, len(data))
    assert varint.decode_strict(data + tail, 0) == (value, len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 10, b"\xff" * 9 + b"\x02"])
def test_endless_varints_are_refused(data: bytes) -> None:
    """A varint that does not end or exceeds 64 bits is refused by both readers."""
    with pytest.raises(CorruptError):
        varint.decode(data, 0)
    with pytest.raises(InvalidError):
        varint.decode_strict(data, 0)


HASHES = [
    (0x12, hashlib.sha256(b"x").digest()),
    (0x13, hashlib.sha512(b"x").digest()),
    (0x20, hashlib.sha384(b"x").digest()),
    (0x14, hashlib.sha3_512(b"x").digest()),
    (0x16, hashlib.sha3_256(b"x").digest()),
    (0xB220, hashlib.blake2b(b"x", digest_size=32).digest()),
    (0xB260, hashlib.blake2s(b"x").digest()),
    (0x1E, blake3.blake3(b"x").digest()),
    (0x1E, blake3.blake3(b"x").digest(length=64)),
    (0x13, hashlib.sha512(b"x").digest()[:32]),
    (0x00, b"x"),
]


@pytest.mark.parametrize(("code", "digest"), HASHES)
def test_blocks_verify_under_each_hash(code: int, digest: bytes) -> None:
    """The right block passes under every hash function known, another one never does."""
    multihash = varint.encode(code) + varint.encode(len(digest)) + digest
    cid = CID(1, RAW, multihash)
    verify(cid, b"x")
    verify(multihash, memoryview(b"x"))
    with pytest.raises(BlockMismatchError, match=str(cid)):
        verify(cid, b"y")
    with pytest.raises(BlockMismatchError):
        verify(multihash, b"")


def test_unknown_and_shortened_hashes_are_invalid() -> None:
    """A hash function not computed here, and a digest too short to stand for one content, are refused, not passed."""
    for multihash in (b"\x11\x14" + hashlib.sha1(b"x").digest(), b"\x12\x04" + hashlib.sha256(b"x").digest()[:4], b""):
        with pytest.raises(InvalidError):
            verify(multihash, b"x")


def test_hot_path_forms_are_taken() -> None:
    """The usual CIDs are read and written without the general parser, and equal what it gives."""
    for codec in (RAW, DAG_PB, DAG_CBOR):
        cid = CID(1, codec, sha256_multihash(b"block"))
        assert CID.decode(cid.encode()) == cid
        assert repr(cid) == f"CID({str(cid)!r})"
    with pytest.raises(InvalidError, match="base64"):
        CID.parse(V1).text("base64")


@SAME_EACH_RUN
@given(st.binary(max_size=80))
def test_verify_never_crashes(multihash: bytes) -> None:
    """A hostile multihash fails in our own families."""
    try:
        verify(multihash, b"data")
    except FungiStorError:
        return
