"""Root keys as words and shares, and under a passphrase."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.errors import DeniedError, InvalidError
from fungistor.keys import passphrase
from fungistor.keys.files import load_root_key, root_key_facts, save_root_key
from fungistor.keys.ring import derive, fingerprint, network_key_of, rotated_root, wrapping_half
from fungistor.keys.words import from_lines, to_shares, to_words

KEY = bytes(range(32))
ROTATED = rotated_root(bytes(range(100, 132)), KEY)
STANDARD = (
    (bytes(32), "abandon " * 23 + "art"),
    (
        b"\x7f" * 32,
        "legal winner thank year wave sausage worth useful " * 2 + "legal winner thank year wave sausage worth title",
    ),
    (b"\xff" * 32, "zoo " * 23 + "vote"),
)
"""From the test vectors of BIP-39."""
SAID_OF_ANY = {"another", "exceed", "length", "master", "member", "multiple", "number", "secret", "unique"}
"""Words of the two lists that are also in the reasons, whatever words were given."""


def test_rotated_keys_keep_their_network() -> None:
    """A rotated root key has another half that wraps, another fingerprint, and the same network key."""
    twice = rotated_root(bytes(32), ROTATED)
    assert len(ROTATED) == len(twice) == 64
    assert network_key_of(KEY) == network_key_of(ROTATED) == network_key_of(twice) == derive(KEY, "network key")
    assert len({fingerprint(key) for key in (KEY, ROTATED, twice)}) == 3
    assert wrapping_half(KEY) == KEY
    assert wrapping_half(ROTATED) == bytes(range(100, 132))


@pytest.mark.parametrize("key", [KEY, ROTATED, bytes(32), b"\xff" * 64])
def test_words_bring_the_key_back(key: bytes) -> None:
    """Keys of both lengths come back from their words, in any case and spacing, and all in one line."""
    lines = to_words(key)
    assert [len(line.split()) for line in lines] == [24] * (len(key) // 32)
    assert from_lines(lines) == key
    assert from_lines(["", f"  {'   '.join(' '.join(lines).upper().split())} ", ""]) == key


@pytest.mark.parametrize(("key", "words"), STANDARD)
def test_words_are_those_of_the_standard(key: bytes, words: str) -> None:
    """Any program of BIP-39 gives and takes the same words."""
    assert to_words(key) == [words]
    assert from_lines([words]) == key


@pytest.mark.parametrize("key", [KEY, ROTATED])
def test_enough_shares_bring_the_key_back(key: bytes) -> None:
    """Any three of five shares, in any order, are enough; two are not, and shares of two exports do not mix."""
    shares = to_shares(key, 3, 5)
    for chosen in itertools.combinations(shares, 3):
        assert from_lines(random.Random(7).sample(chosen, 3)) == key
    assert from_lines([shares[0], *shares[:3]]) == key  # one twice does no harm
    for wrong in (shares[:2], [*shares[:2], to_shares(key, 3, 5)[2]], [*shares[:2], shares[0]]):
        with pytest.raises(InvalidError, match="do not make a key"):
            from_lines(wrong)


@pytest.mark.parametrize(("needed", "count"), [(1, 1), (0, 3), (4, 3), (2, 17), (1, 5)])
def test_shares_that_make_no_sense(needed: int, count: int) -> None:
    """One share that is the key, more needed than there are, more than the standard has: refused."""
    with pytest.raises(InvalidError, match="shares cannot be"):
        to_shares(KEY, needed, count)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 1), st.integers(0, 23), st.data())
def test_a_slip_in_the_words_is_noticed(of: int, place: int, data: st.DataObject) -> None:
    """Another word in any place, of the list or not, gives an error or, one time in 256, another key; no message
    repeats a word."""
    words = to_words(KEY)[0].split() if of else to_shares(KEY, 2, 2)[0].split()
    word = data.draw(st.sampled_from([*to_words(ROTATED)[0].split(), "", "é", "fungi", "a" * 10_000]))
    words[place] = word
    try:
        made = from_lines([" ".join(words)])
    except InvalidError as error:
        looked_for = {part for part in words if len(part) > 5} - SAID_OF_ANY
        assert all(f" {part} " not in f" {error.message} " for part in looked_for)
    else:
        assert made != KEY or words == to_words(KEY)[0].split()


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.text(max_size=200), max_size=20))
def test_any_text_is_no_key(lines: list[str]) -> None:
    """Whatever is given as words is refused as such."""
    with pytest.raises(InvalidError):
        from_lines(lines)


@pytest.mark.parametrize("key", [KEY, ROTATED])
def test_a_passphrase_opens_the_file(tmp_path: Path, key: bytes) -> None:
    """A root key under a passphrase comes back with it alone; its fingerprint is known without it; nothing leaks."""
    path = str(tmp_path / "root.key")
    secret = tmp_path / "passphrase"
    secret.write_bytes("grüne Flechte\r\n".encode())
    save_root_key(path, key, "grüne Flechte".encode())
    assert (tmp_path / "root.key").stat().st_mode & 0o777 == 0o600
    assert root_key_facts(path) == (fingerprint(key), True)
    assert load_root_key(path, {"FUNGISTOR_PASSPHRASE_FILE": str(secret)}) == key
    assert load_root_key(path, {}, lambda _: "grüne Flechte".encode()) == key
    with pytest.raises(DeniedError, match="does not open"):
        load_root_key(path, {}, lambda _: b"guess")
    with pytest.raises(DeniedError, match="nobody can be asked"):
        load_root_key(path, {})
    for bad in (b"", b"x" * 1025):
        secret.write_bytes(bad)
        with pytest.raises(InvalidError, match="1 to 1024 bytes"):
            load_root_key(path, {"FUNGISTOR_PASSPHRASE_FILE": str(secret)})
    with pytest.raises(InvalidError, match="cannot be read"):
        load_root_key(path, {"FUNGISTOR_PASSPHRASE_FILE": str(tmp_path / "none")})
    text = (tmp_path / "root.key").read_bytes()
    assert key[:32] not in text
    save_root_key(path, key)
    assert root_key_facts(path) == (fingerprint(key), False)


def test_garbled_files_under_a_passphrase(tmp_path: Path) -> None:
    """A file that asks for too much memory, or is cut, changed or swapped, is refused before or by its check."""
    path = tmp_path / "root.key"
    save_root_key(str(path), KEY, b"p")
    mark, how, sealed, mine = path.read_text().splitlines()
    _, log_n, block, lanes, salt = how.split()
    other = "A" if salt[0] != "A" else "B"
    for changed in (
        [mark, f"scrypt 30 {block} {lanes} {salt}", sealed, mine],
        [mark, f"scrypt {log_n} 1000 {lanes} {salt}", sealed, mine],
        [mark, f"scrypt -1 {block} {lanes} {salt}", sealed, mine],
        [mark, f"scrypt {'9' * 5000} {block} {lanes} {salt}", sealed, mine],
        [mark, f"argon {log_n} {block} {lanes} {salt}", sealed, mine],
        [mark, f"scrypt {log_n} {block} {lanes} {salt[:8]}", sealed, mine],
        [mark, how, sealed[:-4], mine],
        [mark, how, "A" * 4000, mine],
        [mark, f"scrypt {log_n} {block} {lanes} {other}{salt[1:]}", sealed, mine],
        [mark, how, sealed, "fingerprint 0000000000000000"],
        [mark, how, sealed],
        ["fungistor-root-key 2", how, sealed, mine],
    ):
        path.write_text("\n".join(changed) + "\n")
        with pytest.raises((InvalidError, DeniedError)):
            load_root_key(str(path), {}, lambda _: b"p")


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text(max_size=80), st.text(max_size=80))
def test_no_lines_crash_the_opener(how: str, sealed: str) -> None:
    """Any two lines give InvalidError or DeniedError."""
    with pytest.raises((InvalidError, DeniedError)):
        passphrase.open_key(how, sealed, b"p", "f")
