"""IPNS records: what is believed of them, and what is not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fungistor.dag.cid import CID, DAG_PB
from fungistor.errors import CorruptError, InvalidError
from fungistor.names.key import name_text, parse_key
from fungistor.names.protobuf import Fields, encode_bytes, encode_number
from fungistor.names.public_key import KeyType, PublicKey
from fungistor.names.record import RECORD_BYTES_MAX, create, parse, parse_time
from tests.unit.names.signing import DAY_S, NOW_S, Signer

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "ipns.json").read_text())
SEED = 20_261_121
VALUE = "/ipfs/bafkqaaa"
SIGNER = Signer(7)


@pytest.mark.parametrize("vector", VECTORS["records"], ids=lambda vector: vector["what"])
def test_vectors(vector: dict[str, object]) -> None:
    """A stored record reads as it was written, and the same key writes the same bytes again."""
    key = parse_key(str(vector["name"]))
    assert key is not None
    encoded = bytes.fromhex(str(vector["record"]))
    record = parse(key, encoded)
    told = (record.value, record.sequence, record.expires_s, record.ttl_s, record.has_v1)
    assert told == (vector["value"], vector["sequence"], vector["expires"], vector["ttl"], vector["v1"])
    signer = Signer(int(str(vector["seed"])))
    again = signer.encode(
        record.value,
        sequence=record.sequence,
        expires_s=int(record.expires_s),
        ttl_s=int(record.ttl_s or 0),
        with_v1=record.has_v1,
    )
    assert again == encoded


def _swap(encoded: bytes, field: int, value: bytes | int) -> bytes:
    fields = Fields.read(encoded).values | {field: value}
    return b"".join(
        encode_bytes(number, item) if isinstance(item, bytes) else encode_number(number, item)
        for number, item in fields.items()
    )


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        (1, b"/ipfs/bafkqaab", "one Value"),
        (4, b"2030-01-01T00:00:00Z", "one Validity"),
        (5, 99, "one Sequence"),
        (6, 1, "one TTL"),
        (8, b"\0" * 64, "signature"),
        (8, b"", "no signature of version 2"),
        (9, b"", "no signature of version 2"),
        (9, b"\xa0", "signature"),
    ],
)
def test_what_is_changed_is_refused(field: int, value: bytes | int, says: str) -> None:
    """A record whose old and new parts differ, or whose second signature is not the key's, is not believed."""
    with pytest.raises(CorruptError, match=says):
        parse(SIGNER.name, _swap(SIGNER.encode(VALUE), field, value))


def test_the_first_signature_counts_for_nothing() -> None:
    """A record with a broken signature of version 1 is as good as one without it."""
    record = parse(SIGNER.name, _swap(SIGNER.encode(VALUE), 2, b"\0" * 64))
    assert record.value == VALUE


def test_a_record_of_another_name() -> None:
    """A good record proves nothing about a name whose key did not sign it."""
    with pytest.raises(CorruptError, match="signature"):
        parse(Signer(8).name, SIGNER.encode(VALUE))
    with pytest.raises(CorruptError, match="another key"):
        parse(Signer(8).name, SIGNER.encode(VALUE) + encode_bytes(7, SIGNER.public.encode()))


def _rsa() -> tuple[PublicKey, Callable[[bytes], bytes]]:
    key = rsa.generate_private_key(65537, 2048)
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(KeyType.RSA, der), lambda message: key.sign(message, padding.PKCS1v15(), SHA256())


def _secp256k1() -> tuple[PublicKey, Callable[[bytes], bytes]]:
    key = ec.generate_private_key(ec.SECP256K1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return PublicKey(KeyType.SECP256K1, point), lambda message: key.sign(message, ec.ECDSA(SHA256()))


def _ecdsa() -> tuple[PublicKey, Callable[[bytes], bytes]]:
    key = ec.generate_private_key(ec.SECP256R1())
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(KeyType.ECDSA, der), lambda message: key.sign(message, ec.ECDSA(SHA256()))


@pytest.mark.parametrize("make", [_rsa, _secp256k1, _ecdsa])
def test_other_kinds_of_keys(make: Callable[[], tuple[PublicKey, Callable[[bytes], bytes]]]) -> None:
    """Records of RSA, secp256k1 and ECDSA keys are verified; one bit changed, they are not."""
    key, sign = make()
    encoded = create(VALUE, 3, NOW_S, 60, key, sign)
    assert parse(key.name, encoded).sequence == 3
    signature = Fields.read(encoded).bytes(8)
    assert signature is not None
    with pytest.raises(CorruptError):
        parse(key.name, _swap(encoded, 8, signature[:-1] + bytes([signature[-1] ^ 1])))
    if not key.name.is_identity:
        without = {number: value for number, value in Fields.read(encoded).values.items() if number != 7}
        with pytest.raises(CorruptError, match="lacks the public key"):
            parse(key.name, b"".join(encode_bytes(n, v) for n, v in without.items() if isinstance(v, bytes)))


def test_rsa_keys_out_of_bounds() -> None:
    """An RSA key shorter than libp2p allows signs nothing here."""
    key = rsa.generate_private_key(65537, 1024)  # the point of the test
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    public = PublicKey(KeyType.RSA, der)
    encoded = create(VALUE, 0, NOW_S, 1, public, lambda message: key.sign(message, padding.PKCS1v15(), SHA256()))
    with pytest.raises(CorruptError, match="2048"):
        parse(public.name, encoded)


def test_no_bytes_crash_it() -> None:
    """Whatever bytes come, they are a record or CorruptError."""
    rng = random.Random(SEED)
    good = SIGNER.encode(VALUE)
    for _ in range(1500):
        damaged = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        cut = bytes(damaged[: rng.randrange(len(damaged) + 1)]) if rng.random() < 0.5 else bytes(damaged)
        try:
            parse(SIGNER.name, cut)
        except CorruptError:
            continue
    with pytest.raises(CorruptError, match="at most"):
        parse(SIGNER.name, b"\0" * (RECORD_BYTES_MAX + 1))


def test_newer_is_the_higher_sequence_then_the_later_end() -> None:
    """Sequence rules of the specification."""
    first = SIGNER.record(VALUE, sequence=1)
    assert SIGNER.record(VALUE, sequence=2, expires_s=NOW_S).is_newer_than(first)
    assert SIGNER.record(VALUE, sequence=1, expires_s=NOW_S + 2 * DAY_S).is_newer_than(first)
    assert not first.is_newer_than(first)


def test_times() -> None:
    """Ends are read with up to nine digits of a second and any zone; other texts are refused."""
    assert parse_time(b"2126-11-21T00:00:00.123456789Z") == pytest.approx(4950892800.123456)
    assert parse_time(b"2026-01-01T01:00:00+01:00") == parse_time(b"2026-01-01T00:00:00Z")
    for bad in (b"2026-01-01T00:00:00", b"tomorrow", b"\xff", b""):
        with pytest.raises(CorruptError):
            parse_time(bad)


def test_names_in_every_form() -> None:
    """A key's name is known in base58, base36 and base32, and with the wrong codec; domain names are no keys."""
    name = SIGNER.name
    from fungistor.dag.multibase import encode_base58

    for text in (encode_base58(name.multihash), name.text("base36"), name.text("base32"),
                 CID(1, DAG_PB, name.multihash).text("base36")):  # fmt: skip
        assert parse_key(text) == name
    assert name_text(name).startswith("k51")
    for text, canonical in (
        (
            "12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK",
            "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8",
        ),
        (
            "QmcJM7PRfkSbcM5cf1QugM5R37TLRKyJGgBEhXjLTB8uA2",
            "k2k4r8ol4m8kkcqz509c1rcjwunebj02gcnm5excpx842u736nja8ger",
        ),
    ):
        key = parse_key(text)
        assert key is not None
        assert name_text(key) == canonical
    for text in ("example.com", "12D3Koo", "Qm.example", "", "x" * 4000, "localhost"):
        assert parse_key(text) is None


def test_no_path_no_record() -> None:
    """Only content paths of a bounded length are signed."""
    for value in ("https://x", "/ipfs/" + "x" * 3000):
        with pytest.raises(InvalidError):
            SIGNER.encode(value)
