"""The bytes of commands and records."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import libipld
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.catalog.commands import (
    Body,
    Command,
    Group,
    Payment,
    PayOwed,
    Publish,
    UnknownCommandError,
    decode_command,
    encode_command,
    signed_bytes,
    signed_in,
)
from fungistor.catalog.issuers import ChangeAuthority, RegisterIssuer, Report, RevokeIssuer, Scope
from fungistor.catalog.layouts import LayoutMember, SetLayout
from fungistor.catalog.names import RemoveName, SetName
from fungistor.catalog.record import Record, Sizes, decode_record, encode_record, own_list_key
from fungistor.coding.compress import Compression
from fungistor.coding.manifest import ManifestRoot, RootRef, Slot
from fungistor.coding.page_codec import decode_root, encode_root
from fungistor.errors import CorruptError, InvalidError
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, ObjectId, SessionId, StripeId, TenantNumber
from fungistor.limits import COMMAND_BYTES_MAX
from tests.unit.catalog.samples import command, drawn, layout, owing, publish, record
from tests.vectors.make_catalog import vectors

ROOT = Path(__file__).parents[3]

uints = st.integers(0, 2**63 - 1)
numbers = st.integers(1, 2**32 - 1).map(MemberNumber)
sizes = st.builds(Sizes, uints, uints, uints, uints, uints)


def exactly(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


def texts(most: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8"), min_size=1, max_size=most).filter(lambda t: len(t.encode()) <= most)


records = st.builds(
    Record,
    object_id=exactly(32).map(ObjectId),
    tenant=uints.map(TenantNumber),
    policy=texts(32),
    private=st.booleans(),
    profile=st.integers(0, 255),
    sizes=sizes,
    manifest=st.binary(min_size=1, max_size=512),
    salt=exactly(32),
    list_key=exactly(32),
    sealed_name=st.binary(min_size=1, max_size=300),
    published=uints,
    expires=st.none() | uints,
    owed=st.dictionaries(numbers, st.integers(1, 2**40), max_size=5).map(lambda d: tuple(sorted(d.items()))),
)
degrees = st.none() | st.tuples(st.integers(-90_000_000, 90_000_000), st.integers(-180_000_000, 180_000_000))
members = st.builds(
    lambda number, zone, weight, place: LayoutMember(
        number, MemberId(f"m{number}"), tuple(zone), weight, *(place or (None, None))
    ),
    numbers,
    st.lists(texts(20), max_size=4),
    st.integers(0, 2**32 - 1),
    degrees,
)
layouts = st.builds(
    lambda number, chosen, table, policy: SetLayout(
        LayoutNumber(number), tuple(sorted(chosen, key=lambda m: m.number)), table, policy
    ),
    st.integers(1, 2**40),
    st.lists(members, max_size=5, unique_by=lambda m: m.number),
    st.binary(max_size=50),
    st.binary(max_size=50),
)
payments = st.dictionaries(numbers, st.tuples(st.integers(0, 99), st.integers(1, 99)), max_size=4).map(
    lambda paid: tuple(Payment(m, after + more, after) for m, (after, more) in sorted(paid.items()))
)
listed = st.none() | st.sets(st.integers(0, 2**32 - 1).map(TenantNumber), max_size=4).map(lambda t: tuple(sorted(t)))
bodies: st.SearchStrategy[Body] = st.one_of(
    layouts,
    st.builds(Publish, records, exactly(16) | st.just(b"")),
    st.builds(PayOwed, exactly(32).map(ObjectId), exactly(16), payments),
    st.builds(RegisterIssuer, exactly(32), exactly(32), texts(64), st.integers(0, 31).map(Scope), listed),
    st.builds(
        SetName,
        exactly(32),
        uints.map(TenantNumber),
        exactly(32),
        st.booleans(),
        st.none() | uints,
        st.binary(min_size=1, max_size=300),
        exactly(16),
        uints,
    ),
    st.builds(RemoveName, exactly(32), uints.map(TenantNumber), exactly(32)),
    st.builds(RevokeIssuer, exactly(32), exactly(8)),
    st.builds(ChangeAuthority, exactly(32), exactly(32)),
    st.builds(Report, st.integers(0, 9), st.integers(1, 2**40), exactly(32)) | st.just(Report(1, 0, b"")),
)
sessions = exactly(16).map(SessionId)
groups = st.lists(st.builds(Command, sessions, uints, bodies), min_size=1, max_size=4).map(lambda c: Group(tuple(c)))
commands = st.builds(
    Command, sessions, uints, bodies | groups, st.binary(max_size=8), st.binary(max_size=64), st.none() | uints
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(commands)
def test_every_command_comes_back_from_its_bytes(sent: Command) -> None:
    """Decoding what was encoded gives the same command, of the same bytes."""
    data = encode_command(sent)
    assert decode_command(data) == sent
    assert encode_command(decode_command(data)) == data


@settings(deadline=None, derandomize=True, max_examples=100)
@given(commands, st.booleans())
def test_the_short_form_is_the_same_command(sent: Command, own: bool) -> None:
    """The short form, of salts of the command's session and of others, is read as the command that the long form is; a
    publish with a salt and a list key of its own is 57 bytes shorter by it."""
    if own and isinstance(sent.body, Publish):
        kept = replace(sent.body.record, salt=sent.session + sent.body.record.salt[16:], policy="default")
        kept = replace(kept, list_key=own_list_key(kept.object_id, kept.salt))
        sent = replace(sent, body=replace(sent.body, record=kept))
    short = encode_command(sent, short=True)
    assert decode_command(short) == sent
    assert encode_command(decode_command(short), short=True) == short
    assert signed_in(sent, short) == signed_bytes(sent, short=True)
    assert signed_in(sent, encode_command(sent)) == signed_bytes(sent)
    if own and isinstance(sent.body, Publish):
        assert len(short) == len(encode_command(sent)) - 57


@settings(deadline=None, derandomize=True, max_examples=400)
@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoders(data: bytes) -> None:
    """Any bytes at all give a value or CorruptError."""
    for decode in (decode_command, decode_record):
        with suppress(CorruptError):
            decode(data)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(commands, st.data())
def test_no_flipped_cut_or_grown_command_crashes_the_decoder(sent: Command, data: st.DataObject) -> None:
    """A command with a byte changed, cut off or added is refused, or is another command in its only byte form."""
    good = encode_command(sent)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(
        st.sampled_from(
            [good[:at], good[:at] + b"\x00" + good[at:], good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :]]
        )
    )
    with suppress(CorruptError):
        assert encode_command(decode_command(bad)) == bad


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.recursive(
        st.none() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=9) | st.booleans(),
        lambda inner: st.lists(inner, max_size=8),
        max_leaves=40,
    )
)
def test_no_dag_cbor_value_crashes_the_decoders(value: object) -> None:
    """Well-formed DAG-CBOR of any other shape is refused by CorruptError, as a body too."""
    for shape in (value, [0, bytes(16), 0, b"", b"", 0, value], [0, bytes(16), 0, b"", b"", 1, [value, b""]]):
        with suppress(CorruptError):
            decode_command(libipld.encode_dag_cbor(shape))


@pytest.mark.parametrize(
    "data", [b"\x81" * 100_000 + b"\x00", b"\x9b" + b"\xff" * 8, b"\xd8\x2a\x41\x00", b"\xf9\x7e\x00"]
)
def test_hostile_cbor_is_refused(data: bytes) -> None:
    """Deep nesting, lengths beyond the data, odd CIDs and floats end as CorruptError."""
    with pytest.raises(CorruptError):
        decode_command(data)


def test_a_value_has_one_byte_form() -> None:
    """The same numbers in a longer encoding are refused, so equal commands have equal digests."""
    good = encode_command(command(publish()))
    assert good[:2] == b"\x87\x00"
    with pytest.raises(CorruptError, match="canonical"):
        decode_command(b"\x87\x18\x00" + good[2:])


def test_a_record_without_debts_takes_400_bytes_at_most() -> None:
    """A file of 4 GiB, a hundred bytes of manifest root, and a name of 32 bytes beside its CID fit."""
    assert len(encode_record(record(expires=1_890_000_000))) <= 400


def test_later_versions_and_kinds_are_told_from_damage() -> None:
    """A version or kind of a later program is UnknownCommandError, which names it and says to update."""
    fields = libipld.decode_dag_cbor(encode_command(command(publish())))
    with pytest.raises(UnknownCommandError, match="version 1") as caught:
        decode_command(libipld.encode_dag_cbor([1, "whatever", "else"]))
    assert "update" in caught.value.hint
    with pytest.raises(UnknownCommandError, match="kind 200"):
        decode_command(libipld.encode_dag_cbor([*fields[:5], 200, []]))


@pytest.mark.parametrize(
    "body",
    [
        publish(policy=""),
        publish(policy="p" * 33),
        publish(policy="\ud800"),
        publish(salt=b"short"),
        publish(sizes=Sizes(-1, 0, 0, 0, 0)),
        publish(sizes=Sizes(2**63, 0, 0, 0, 0)),
        publish(owed=owing((2, 1), (1, 1))),
        publish(owed=owing((1, 0))),
        publish(against=b"short"),
        replace(layout(1), number=LayoutNumber(0)),
        replace(layout(1), members=layout(1).members[::-1]),
        replace(layout(1), members=(layout(1).members[0], replace(layout(1).members[0], number=MemberNumber(2)))),
        replace(layout(1), members=(replace(layout(1).members[0], lat_microdegrees=1),)),
        replace(layout(1), members=(replace(layout(1).members[0], weight=-1),)),
        layout(1, table=bytes(COMMAND_BYTES_MAX)),
        PayOwed(ObjectId(bytes(32)), bytes(16), (Payment(MemberNumber(1), 2, 2),)),
        PayOwed(ObjectId(bytes(32)), bytes(15), ()),
    ],
)
def test_a_command_out_of_bounds_is_refused_when_encoded(body: Body) -> None:
    """What other nodes would have to refuse is InvalidError here, before it reaches the log."""
    with pytest.raises(InvalidError):
        encode_command(command(body))


def test_the_signature_covers_all_but_itself() -> None:
    """Signed bytes are those of the command with an empty signature, issuer included."""
    plain = replace(command(publish()), issuer=b"issuer")
    assert signed_bytes(replace(plain, signature=b"s" * 64)) == encode_command(plain)


def test_the_frozen_vectors_are_what_this_program_makes() -> None:
    """The generator gives the stored file, every vector decodes to bytes that encode to it, and the page lists it."""
    stored = json.loads((ROOT / "tests/vectors/catalog.json").read_text())
    assert vectors() == stored
    page = (ROOT / "docs/formats/catalog.md").read_text().replace("\n", "")
    for form in ("commands", "short"):
        for vector in stored[form]:
            data = bytes.fromhex(vector["hex"])
            assert encode_command(decode_command(data), short=form == "short") == data
            assert vector["hex"] in page, vector["name"]
    for vector in stored["refused"]:
        with pytest.raises(CorruptError):
            decode_command(bytes.fromhex(vector["hex"]))
        assert vector["hex"] in page, vector["name"]


def test_a_manifest_root_of_coding_fits_and_comes_back() -> None:
    """The largest numbers that a root has room for still leave the record within 400 bytes."""
    slot = Slot(StripeId(bytes(32)), 16, 4, (1 << 18) + 4096, bytes(32), LayoutNumber(70_000))
    ref = RootRef(1 << 20, 200_000, 250_000, Compression.ZSTD)
    root = ManifestRoot(slot, ref, ref, drawn("salt"))
    kept = replace(record(expires=1_890_000_000), manifest=encode_root(root), salt=root.salt)
    assert len(encode_record(kept)) <= 400
    again = decode_record(encode_record(kept))
    assert decode_root(again.manifest, again.salt) == root
