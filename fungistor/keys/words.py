"""A root key as words to write down: all of it (BIP-39), or shares of which some bring it back (SLIP-39)."""

from __future__ import annotations

from collections.abc import Sequence

from mnemonic import Mnemonic
from shamir_mnemonic import MnemonicError, combine_mnemonics, generate_mnemonics
from shamir_mnemonic.wordlist import WORDLIST as SHARE_WORDS

from fungistor.errors import InvalidError
from fungistor.keys.ring import KEY_BYTES, ROOT_KEY_BYTES

SHARES_MAX = 16
"""The standard's bound."""

WORDS_A_KEY = 24
_ITERATION_EXPONENT = 0
"""The key is random and the shares have no passphrase: stretching would cost time and protect nothing."""


def to_words(key: bytes) -> list[str]:
    """The key as lines of 24 words: one, or two for a key that was rotated."""
    english = Mnemonic("english")
    return [english.to_mnemonic(key[start : start + KEY_BYTES]) for start in range(0, len(key), KEY_BYTES)]


def to_shares(key: bytes, needed: int, count: int) -> list[str]:
    """The key as `count` lines of words, any `needed` of which bring it back; fewer tell nothing.

    Raises: InvalidError where these numbers make no sense.
    """
    if not 2 <= needed <= count <= SHARES_MAX:
        raise InvalidError(
            f"{needed} of {count} shares cannot be", hint=f"say K/N with 2 <= K <= N <= {SHARES_MAX}, such as 3/5"
        )
    (group,) = generate_mnemonics(1, [(needed, count)], key, iteration_exponent=_ITERATION_EXPONENT)
    return [str(share) for share in group]


def from_lines(lines: Sequence[str]) -> bytes:
    """The key in words or in enough shares, in any order of the shares.

    Raises: InvalidError, saying what is wrong with which line; no message repeats a word.
    """
    rows = [" ".join(line.lower().split()) for line in lines if line.strip()]
    if not rows:
        raise InvalidError("there are no words", hint="give the lines that `fungistor keys export` printed")
    if len(rows) == 1 and len(rows[0].split()) == 2 * WORDS_A_KEY:
        words = rows[0].split()
        rows = [" ".join(words[:WORDS_A_KEY]), " ".join(words[WORDS_A_KEY:])]
    if all(len(row.split()) == WORDS_A_KEY for row in rows):
        return _from_words(rows)
    return _from_shares(rows)


def _from_words(rows: Sequence[str]) -> bytes:
    english = Mnemonic("english")
    if len(rows) > ROOT_KEY_BYTES // KEY_BYTES:
        raise InvalidError(f"{len(rows)} lines of {WORDS_A_KEY} words are too many: a key has one, or two once rotated")
    key = b""
    for number, row in enumerate(rows, 1):
        for place, word in enumerate(row.split(), 1):
            if word not in english.wordlist:
                raise InvalidError(
                    f"word {place} of line {number} is not in the list of BIP-39", hint="look for a slip"
                )
        if not english.check(row):
            raise InvalidError(
                f"the words of line {number} do not fit each other",
                hint="one of them is another, or they are not in order",
            )
        key += bytes(english.to_entropy(row))
    return key


def _from_shares(rows: Sequence[str]) -> bytes:
    known = set(SHARE_WORDS)
    for number, row in enumerate(rows, 1):
        for place, word in enumerate(row.split(), 1):
            if word not in known:
                raise InvalidError(
                    f"word {place} of line {number} is not in the list of SLIP-39", hint="look for a slip"
                )
    if len(rows) > SHARES_MAX:
        raise InvalidError(f"{len(rows)} shares are more than the {SHARES_MAX} that there can be")
    try:
        key = combine_mnemonics(sorted(set(rows)))
    except (MnemonicError, ValueError) as error:
        raise InvalidError(
            f"these {len(rows)} lines do not make a key: {_told(error)}",
            hint="give as many shares as were said to be needed, all of one export, each as it was printed",
        ) from error
    if len(key) not in (KEY_BYTES, ROOT_KEY_BYTES):
        raise InvalidError(f"these shares hold {len(key)} bytes, and a root key has {KEY_BYTES} or {ROOT_KEY_BYTES}")
    return bytes(key)


def _told(error: Exception) -> str:
    """The library's reason up to where it would repeat a share."""
    return str(error).partition('"')[0].rstrip(' :."').lower() or "they are damaged"
