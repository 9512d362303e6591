"""Readers of replies, fed in every way that a socket may cut a stream."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.zdb.replies import LengthError, Replies, ReplyReader, ValueReply
from fungistor.zdb.resp import ErrorReply, ProtocolError, Reply, Status, command, parse, set_head

PAYLOAD, TAG = bytes(range(200)), b"0123456789abcdef"
VALUE = b"$216\r\n" + PAYLOAD + TAG + b"\r\n"


def feed(reader: ReplyReader, stream: bytes, cuts: list[int]) -> tuple[bool, int]:
    """Give a stream in pieces as a socket would; whether the reply is whole, and how much of the stream it took."""
    at, done = 0, False
    steps = iter(cuts)
    while at < len(stream) and not done:
        limit = max(1, next(steps, len(stream)))
        taken = 0
        for room in reader.room():
            piece = stream[at + taken : at + min(limit, taken + len(room))]
            room[: len(piece)] = piece
            taken += len(piece)
            if taken >= limit:
                break
        at += taken
        done = reader.took(taken)
    return done, at


def value_reader() -> tuple[ValueReply, bytearray, bytearray]:
    payload, tag = bytearray(len(PAYLOAD)), bytearray(len(TAG))
    return ValueReply(memoryview(payload), tag), payload, tag


cuts = st.lists(st.integers(1, 60), max_size=200)


@given(cuts)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_value_lands_in_its_buffers_however_it_is_cut(pieces: list[int]) -> None:
    """Payload and tag are received in place, and not one byte beyond the reply is taken."""
    reader, payload, tag = value_reader()
    done, at = feed(reader, VALUE + b"+NEXT\r\n", pieces)
    assert (done, at) == (True, len(VALUE))
    assert reader.found
    assert (bytes(payload), bytes(tag)) == (PAYLOAD, TAG)


@given(st.sampled_from([b"$-1\r\n", b"-Internal Error, and a long story about it " + b"x" * 80 + b"\r\n"]), cuts)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_what_is_no_value_is_recognised_however_it_is_cut(stream: bytes, pieces: list[int]) -> None:
    """Nil and errors are read whole, though their first bytes may have landed in the payload's place."""
    reader, _, _ = value_reader()
    done, at = feed(reader, stream, pieces)
    assert (done, at) == (True, len(stream))
    assert not reader.found
    assert reader.missing is (stream == b"$-1\r\n")
    assert reader.other == ("does not have it" if reader.missing else f"answered: {stream[1:-2].decode()}")


@given(st.sampled_from([215, 217, 0, 21, 2160, 8 << 20]), cuts)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_value_of_another_length_is_refused(length: int, pieces: list[int]) -> None:
    """Too short, too long, empty: never found, and never more than the announced bytes kept."""
    reader, _, _ = value_reader()
    stream = b"$%d\r\n" % length + b"x" * min(length, 4000) + b"\r\n"
    try:
        done, _ = feed(reader, stream, pieces)
    except LengthError as error:
        assert str(length) in error.message
        return
    assert not reader.found
    assert not done or reader.wrong_length


@given(st.binary(max_size=600), cuts)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_bytes_are_a_reply_or_nonsense(stream: bytes, pieces: list[int]) -> None:
    """Whatever a member sends, only ProtocolError comes of it."""
    for reader in (Replies(2), value_reader()[0]):
        try:
            feed(reader, stream, pieces)
        except ProtocolError:
            continue


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_parsing_any_bytes_never_crashes(data: bytes) -> None:
    """A reply, not enough yet, or ProtocolError."""
    try:
        parsed = parse(data)
    except ProtocolError:
        return
    assert parsed is None or 0 < parsed[1] <= len(data)


@pytest.mark.parametrize(
    ("stream", "value"),
    [
        (b"+OK\r\n", Status("OK")),
        (b"-No such thing\r\n", ErrorReply("No such thing")),
        (b":-12\r\n", -12),
        (b"$0\r\n\r\n", b""),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*3\r\n:1\r\n:0\r\n$2\r\nab\r\n", [1, 0, b"ab"]),
    ],
)
def test_each_kind_of_reply_is_read_only_when_it_is_whole(stream: bytes, value: Reply) -> None:
    """Every proper prefix is not enough, the whole is the value."""
    assert all(parse(stream[:cut]) is None for cut in range(len(stream)))
    assert parse(stream) == (value, len(stream))


@pytest.mark.parametrize(
    "stream",
    [b"?1\r\n", b":x\r\n", b"$-2\r\n", b"$8388609\r\n", b"$1\r\nabc", b"*65537\r\n", b"*1\r\n" * 6, b":" * 9000],
)
def test_nonsense_is_refused_as_soon_as_it_is_seen(stream: bytes) -> None:
    """No unbounded waiting for what can never become a reply."""
    with pytest.raises(ProtocolError):
        parse(stream)


def test_a_set_in_pieces_is_a_whole_command() -> None:
    """The head, the caller's value and CRLF make the command that a whole encoding makes."""
    assert set_head(b"key", 5) + b"value" + b"\r\n" == command("SET", "key", b"value")
    assert command("WAITAOF", 1, 0, 10) == b"*4\r\n$7\r\nWAITAOF\r\n$1\r\n1\r\n$1\r\n0\r\n$2\r\n10\r\n"
