"""The key hierarchy: what derives, wraps and names, and that none of it shows."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.errors import CorruptError, DeniedError
from fungistor.ids import TenantNumber
from fungistor.keys.ring import NodeKeys, block_hash, derive, fingerprint, object_id, unwrap, wrap
from tests.unit.coding.format_pages import flat, quoted, stored
from tests.vectors.make_keys import NODE_KEYS, ROOT_KEY, SALT, TENANT_KEY, vectors

key = st.binary(min_size=32, max_size=32)


def test_purposes_and_salts_give_keys_of_their_own() -> None:
    """Key, purpose and salt each change what is derived; the same three give the same."""
    made = {
        derive(source, purpose, salt)
        for source in (ROOT_KEY, TENANT_KEY)
        for purpose in ("list root page", "map root page")
        for salt in (b"", SALT, bytes(32))
    }
    assert len(made) == 12
    assert derive(ROOT_KEY, "x", SALT) == derive(ROOT_KEY, "x", SALT)


def test_other_lengths_are_the_callers_error() -> None:
    """A short key or salt is a ValueError, never silently another key."""
    for source, salt in ((bytes(31), b""), (bytes(33), b""), (bytes(32), bytes(31))):
        with pytest.raises(ValueError, match="a key has 32 bytes and a salt 32 or none"):
            derive(source, "x", salt)
    with pytest.raises(ValueError, match="keys have 32 bytes"):
        wrap(bytes(16), bytes(32))


@settings(deadline=None, max_examples=100)
@given(wrapping=key, other=key, inner=key, data=st.data())
def test_a_wrapped_key_opens_with_its_own_key_alone(
    wrapping: bytes, other: bytes, inner: bytes, data: st.DataObject
) -> None:
    """The wrapping key opens it; another key and a flipped bit are a DeniedError that says which keys they are."""
    wrapped = wrap(wrapping, inner)
    assert len(wrapped) == 40
    assert unwrap(wrapping, wrapped) == inner
    if other != wrapping:
        with pytest.raises(DeniedError, match="this root key does not open the key of tenant 0"):
            unwrap(other, wrapped, what="key of tenant 0", under="root key")
    bit = data.draw(st.integers(0, 319))
    flipped = bytearray(wrapped)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DeniedError, match="this tenant key does not open the object key"):
        unwrap(wrapping, bytes(flipped))


@settings(deadline=None, max_examples=100)
@given(wrapped=st.binary(max_size=60))
def test_no_bytes_crash_unwrapping(wrapped: bytes) -> None:
    """Arbitrary bytes are a DeniedError or, of another length, a CorruptError."""
    with pytest.raises((DeniedError, CorruptError)):
        unwrap(ROOT_KEY, wrapped)


def test_names_depend_on_network_tenant_codec_and_multihash() -> None:
    """Two networks or tenants name the same CID differently, and a block's hash is no object's id."""
    multihash = b"\x12\x20" + bytes(32)
    names = {
        object_id(network, TenantNumber(tenant), codec, named)
        for network in (ROOT_KEY, TENANT_KEY)
        for tenant in (0, 1)
        for codec in (0x55, 0x70)
        for named in (multihash, b"\x12\x20" + bytes(31) + b"\x01")
    }
    assert len(names) == 16
    assert {len(name) for name in names} == {32}
    hashes = {block_hash(network, multihash) for network in (ROOT_KEY, TENANT_KEY)}
    assert len(hashes) == 2
    assert {len(one) for one in hashes} == {16}


def test_reprs_hold_no_key() -> None:
    """A printed NodeKeys shows the fingerprint and not one byte of a key."""
    shown = repr(NODE_KEYS)
    assert NODE_KEYS.root_fingerprint in shown
    for secret in (NODE_KEYS.network_key, NODE_KEYS.signing_key, *NODE_KEYS.tenant_keys.values()):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown


def test_signatures_verify_under_the_issuer() -> None:
    """What a node signs verifies with the public key it names."""
    signature = NODE_KEYS.sign(b"command")
    Ed25519PublicKey.from_public_bytes(NODE_KEYS.issuer).verify(signature, b"command")


def test_another_networks_root_key_is_named() -> None:
    """check_root passes the issuing root key, and names both fingerprints for another."""
    NODE_KEYS.check_root(ROOT_KEY)
    with pytest.raises(DeniedError) as caught:
        NODE_KEYS.check_root(TENANT_KEY)
    assert fingerprint(TENANT_KEY) in caught.value.message
    assert fingerprint(ROOT_KEY) in caught.value.message


def test_node_keys_of_other_lengths_are_refused() -> None:
    """A key that is not 32 bytes never becomes part of a node's keys."""
    with pytest.raises(ValueError, match="32 bytes"):
        NodeKeys(bytes(32), {TenantNumber(0): bytes(16)}, bytes(32), "0" * 16)


def test_frozen_vectors_hold() -> None:
    """Code, tests/vectors/keys.json and docs/formats/keys.md agree."""
    assert vectors() == stored("keys")
    rows = quoted("keys")
    assert rows
    assert rows.items() <= flat(stored("keys")).items()
