"""Bytes as text with a letter in front that names the alphabet: the common ones ours, the rare ones the library's."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from fungistor.errors import InvalidError

TEXT_CHARS_MAX = 1200
"""The longest CID (a digest of 128 bytes) in the widest alphabet (base2). It bounds the quadratic conversions, too."""

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUE = {letter: value for value, letter in enumerate(_BASE58)}
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE32 = bytes.maketrans(bytes(range(32)), b"abcdefghijklmnopqrstuvwxyz234567")
_BASE36_ONLY = re.compile(r"[0-9a-z]*\Z")
_HEX_ONLY = re.compile(r"(?:[0-9a-fA-F]{2})*\Z")
_BASE64_ONLY = re.compile(r"[0-9A-Za-z+/]*\Z")
_BASE64URL_ONLY = re.compile(r"[0-9A-Za-z_-]*\Z")


_LETTERS_MAX = 64
_SPREAD_BYTES_MAX = _LETTERS_MAX * 5 // 8
"""Longer than any usual CID; the few longer ones are left to the standard library, which takes four times as long."""


def _spread_of(half: int) -> tuple[int, int, int]:
    """For lanes of two halves of `half` letters: the lower halves' bits, the upper ones', and how far these move up."""
    starts = range(0, 8 * _LETTERS_MAX, 16 * half)
    lower = sum((1 << 5 * half) - 1 << start for start in starts)
    return lower, lower << 5 * half, 3 * half


_SPREADING = [_spread_of(half) for half in (32, 16, 8, 4, 2, 1)]
"""Steps that spread letters of five bits each to bytes, all at once: one number, halved and halved again."""


def _from_number(number: int, zeros: int) -> bytes:
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _to_digits(data: bytes, alphabet: str) -> str:
    number, base, digits = int.from_bytes(data, "big"), len(alphabet), []
    while number:
        number, digit = divmod(number, base)
        digits.append(alphabet[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return alphabet[0] * zeros + "".join(reversed(digits))


def encode_base58(data: bytes) -> str:
    """Return base58btc without a prefix, the form of CIDv0 and of peer ids."""
    return _to_digits(data, _BASE58)


def decode_base58(text: str) -> bytes:
    """Read base58btc without a prefix.

    Raises:
        InvalidError: a letter outside the alphabet, or more than TEXT_CHARS_MAX of them.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise InvalidError(f"{len(text)} characters of base58, at most {TEXT_CHARS_MAX} are read")
    number = 0
    try:
        for letter in text:
            number = number * 58 + _BASE58_VALUE[letter]
    except KeyError as error:
        raise InvalidError(f"{error.args[0]!r} is no letter of base58") from None
    return _from_number(number, len(text) - len(text.lstrip("1")))


def encode_base32(data: bytes) -> str:
    """Return RFC 4648 base32 in lower case, without padding or prefix."""
    if len(data) > _SPREAD_BYTES_MAX:
        return base64.b32encode(data).decode("ascii").rstrip("=").lower()
    spread = int.from_bytes(data, "big") << 8 * (_SPREAD_BYTES_MAX - len(data))
    for stay, move, by in _SPREADING:
        spread = spread & stay | (spread & move) << by
    letters = spread.to_bytes(_LETTERS_MAX, "big").translate(_BASE32)
    return letters[: (8 * len(data) + 4) // 5].decode("ascii")


def _decode_base32(text: str) -> bytes:
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))


def encode_base36(data: bytes) -> str:
    """Return base36 in lower case, without prefix: what fits a DNS label best."""
    return _to_digits(data, _BASE36)


def _decode_base36(text: str) -> bytes:
    lower = text.lower()
    if not _BASE36_ONLY.match(lower):
        raise ValueError("a letter outside the alphabet")
    return _from_number(int(lower or "0", 36), len(lower) - len(lower.lstrip("0")))


def _decode_base16(text: str) -> bytes:
    if not _HEX_ONLY.match(text):
        raise ValueError("not pairs of hexadecimal digits")
    return bytes.fromhex(text)


def _decode_base64(text: str) -> bytes:
    bare = text.rstrip("=")
    if not _BASE64_ONLY.match(bare):
        raise ValueError("a letter outside the alphabet")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)


def _decode_base64url(text: str) -> bytes:
    bare = text.rstrip("=")
    if not _BASE64URL_ONLY.match(bare):
        raise ValueError("a letter outside the alphabet")
    return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))


_DECODERS: dict[str, Callable[[str], bytes]] = {
    "b": _decode_base32,
    "B": _decode_base32,
    "z": decode_base58,
    "k": _decode_base36,
    "K": _decode_base36,
    "f": _decode_base16,
    "F": _decode_base16,
    "m": _decode_base64,
    "M": _decode_base64,
    "u": _decode_base64url,
    "U": _decode_base64url,
}


def decode(text: str) -> bytes:
    """Read text whose first letter names its alphabet. Letter case is ignored where the alphabet has one case.

    Raises:
        InvalidError: an unknown alphabet, a letter outside it, or more than TEXT_CHARS_MAX letters.
    """
    if not text or len(text) > TEXT_CHARS_MAX:
        raise InvalidError(f"{len(text)} characters of multibase text, 1 to {TEXT_CHARS_MAX} are read")
    decoder = _DECODERS.get(text[0])
    if decoder and not text.isascii():  # else a letter like the Kelvin sign would pass as its lower case
        raise InvalidError(f"multibase text of alphabet {text[0]!r} has letters outside ASCII")
    try:
        return decoder(text[1:]) if decoder else _decode_rare(text)
    except (ValueError, KeyError, binascii.Error) as error:
        raise InvalidError(f"not multibase text: {error}") from None


def _decode_rare(text: str) -> bytes:
    # Imported when first needed: building the library's tables takes longer than everything else in this room.
    from multiformats import multibase

    try:
        return bytes(multibase.decode(text))
    except (LookupError, TypeError, AssertionError) as error:
        raise ValueError(str(error)) from None
