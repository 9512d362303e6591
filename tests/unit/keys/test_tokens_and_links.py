"""What lets somebody without keys act or read for a tenant: forms of text, digests, signatures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.ids import TenantNumber
from fungistor.keys.links import Link, is_signed, sign_link, tenant_of
from fungistor.keys.tokens import draw_token, parse_token
from tests.vectors.make_tenants import LINKS, ROOT, TENANT_KEY, vectors

STORED = Path(__file__).parents[2] / "vectors" / "tenants.json"


def test_the_frozen_vectors_are_what_this_program_makes() -> None:
    """Tokens, digests, link keys and signatures stay as they were."""
    assert vectors() == json.loads(STORED.read_text())


def test_a_token_has_one_text_and_its_digest_is_its_alone() -> None:
    """It reads back; no message of it shows the secret; another token's digest is not its."""
    token, other = draw_token(), draw_token()
    assert parse_token(token.text) == token
    assert token.is_of(token.digest)
    assert not token.is_of(other.digest)
    assert token.text.split("_", 2)[2] not in repr(token)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(max_size=80) | st.from_regex(r"fst_[0-9a-f]{14,18}_[A-Za-z0-9_=-]{40,46}", fullmatch=True))
def test_any_other_text_is_no_token(text: str) -> None:
    """What parses is written back as it was: no second text of one token, and no error for any."""
    token = parse_token(text)
    assert token is None or token.text == text


@pytest.mark.parametrize(
    "altered",
    [
        replace(LINKS[1], tenant=TenantNumber(4)),
        replace(LINKS[1], root=ROOT[:-1] + b"\x00"),
        replace(LINKS[1], names=(b"a",)),
        replace(LINKS[1], names=(b"a", b"b c", b"")),
        replace(LINKS[1], names=(b"ab c",)),
        replace(LINKS[1], form=""),
        replace(LINKS[1], form="raw"),
        replace(LINKS[1], expires=LINKS[1].expires + 1),
        LINKS[0],
    ],
)
def test_a_signature_is_of_one_link_alone(altered: Link) -> None:
    """Tenant, root, each name, form and end are all under it."""
    link = LINKS[1]
    signature = sign_link(link, TENANT_KEY, 2)
    assert is_signed(link, signature, TENANT_KEY, 2)
    assert not is_signed(altered, signature, TENANT_KEY, 2)


def test_a_signature_ends_with_its_epoch_and_its_key() -> None:
    """Under the next epoch, or another tenant's key, it is none."""
    signature = sign_link(LINKS[0], TENANT_KEY, 2)
    assert not is_signed(LINKS[0], signature, TENANT_KEY, 3)
    assert not is_signed(LINKS[0], signature, bytes(32), 2)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_-]{49,51}", fullmatch=True))
def test_any_other_text_is_no_signature(text: str) -> None:
    """Nothing but the signature itself is taken, and nothing raises."""
    assert tenant_of(text) is None or len(text) == 50
    assert not is_signed(LINKS[0], text, TENANT_KEY, 2)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(0, 49), st.sampled_from("ABCxyz019-_"))
def test_no_letter_of_a_signature_can_be_another(place: int, letter: str) -> None:
    """Not even those whose last bits mean nothing."""
    signature = sign_link(LINKS[0], TENANT_KEY, 2)
    forged = signature[:place] + letter + signature[place + 1 :]
    assert is_signed(LINKS[0], forged, TENANT_KEY, 2) == (forged == signature)
