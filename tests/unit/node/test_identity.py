from __future__ import annotations

import json
from pathlib import Path

from fungistor.ids import MemberId, MemberNumber
from fungistor.node.identity import IDENTITY_BYTES, PURPOSE, VERSION, member_identity
from tests.vectors.make_identity import make

ROOT = Path(__file__).parents[3]


def test_identities_are_the_frozen_ones() -> None:
    """What this version writes is what the stored vectors say."""
    assert make() == json.loads((ROOT / "tests/vectors/identity.json").read_text())


def test_every_number_id_and_network_has_its_own() -> None:
    """No two members, numbers or networks share an identity, and all have the documented length and version."""
    made = {
        member_identity(bytes([network]) * 32, MemberNumber(number), MemberId(name))
        for network in range(3)
        for number in range(1, 4)
        for name in ("m01", "m02")
    }
    assert len(made) == 18
    assert {(len(value), value[0]) for value in made} == {(IDENTITY_BYTES, VERSION)}


def test_the_page_names_what_the_module_does() -> None:
    """The format's page and its module agree on version and purpose."""
    page = (ROOT / "docs/formats/identity.md").read_text()
    assert f"version {VERSION}" in page
    assert f'"{PURPOSE}"' in page
