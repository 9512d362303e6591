"""One ``.deny`` file, line by line: header, rules, hints.

The format is https://specs.ipfs.tech/compact-denylist-format/. A line that is no rule is told and passed over, as
operators edit these lists by hand; a list of another version, or with a header that cannot be read, is refused whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from fungistor.dag.cid import CID
from fungistor.dag.multibase import decode_base58
from fungistor.errors import FungiStorError, InvalidError
from fungistor.limits import KIB, MIB

HEADER_BYTES_MAX = 1 * MIB
LINE_BYTES_MAX = 2 * MIB
PATH_BYTES_MAX = 64 * KIB
VERSION = 1

GONE = 410
STATUSES = frozenset((GONE, 451))
STATUS_HINTS = ("gateway_status", "http_status", "status")

SHA2_256 = 0x12
HEX_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `keys` are what it is found by: ``("ipfs", multihash)``, ``("ipns", name)`` or ``("hash", code,
    digest)``; a double hash that can be read in two ways has two. `is_prefix`: every path that starts with `path`."""

    keys: tuple[tuple[object, ...], ...]
    path: bytes = b""
    is_prefix: bool = False
    allows: bool = False
    status: int = GONE
    line: int = 0

    def matches(self, path: bytes) -> bool:
        """Tell whether the rule is about this path below what it was found by."""
        return path.startswith(self.path) if self.is_prefix else path == self.path


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no rule."""

    line: int
    why: str


def parse(lines: Iterable[bytes]) -> Iterator[Rule | BadLine]:
    """Read a list. `lines` end with their newline; one longer than LINE_BYTES_MAX may come in pieces.

    Raises:
        InvalidError: a header that cannot be read, or of another version.
    """
    head: list[bytes] = []
    head_bytes = 0
    source = iter(lines)
    found = False
    for line in source:
        if line.rstrip(b"\r\n") == b"---":
            found = True
            break
        head.append(line)
        head_bytes += len(line)
        if head_bytes > HEADER_BYTES_MAX:
            break
    hints = _header(head) if found else {}
    number = len(head) + 1 if found else 0
    rest: Iterable[bytes] = source if found else _chain(head, source)
    is_tail = False
    for line in rest:
        was_tail, is_tail = is_tail, not line.endswith(b"\n")
        number += not was_tail
        if was_tail:
            continue
        if len(line) > LINE_BYTES_MAX:
            yield BadLine(number, f"longer than {LINE_BYTES_MAX} bytes")
            continue
        try:
            rule = parse_line(line, hints, number)
        except FungiStorError as error:
            yield BadLine(number, error.message)
        else:
            if rule is not None:
                yield rule


def _chain(head: list[bytes], source: Iterator[bytes]) -> Iterator[bytes]:
    yield from head
    yield from source


def _header(lines: list[bytes]) -> dict[str, str]:
    """Read the parts of a YAML header that mean anything here: the version, and the map of hints.

    Raises: InvalidError.
    """
    hints: dict[str, str] = {}
    section = ""
    for number, raw in enumerate(lines, 1):
        try:
            text = raw.decode("utf-8").rstrip()
        except UnicodeDecodeError:
            raise InvalidError(f"line {number} of the header is not UTF-8") from None
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        key, colon, value = (part.strip() for part in text.partition(":"))
        is_nested = text[0] in " \t"
        if not is_nested:
            if not colon:
                raise InvalidError(f"line {number} of the header has no key")
            section = key
            if key == "version" and value.strip("'\"") != str(VERSION):
                raise InvalidError(f"the list is of version {value[:20]!r}, known is {VERSION}")
        elif section == "hints" and colon:
            hints[key] = value.strip("'\"")
    return hints


def parse_line(line: bytes, hints: dict[str, str], number: int) -> Rule | None:
    """Read one line; None for a comment or an empty one.

    Raises: InvalidError.
    """
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InvalidError("not UTF-8") from None
    if not text or text.startswith("#"):
        return None
    item, *said = text.split()
    own = dict(_hint(word) for word in said)
    allows = item[0] in "!+-"
    item = item[1:] if allows else item
    keys, path, is_prefix = _target(item)
    return Rule(keys, path, is_prefix, allows, _status({**hints, **own}), number)


def _hint(word: str) -> tuple[str, str]:
    separator = min((word.find(char), char) for char in ":=" if char in word)[1] if set(":=") & set(word) else ":"
    key, _, value = word.partition(separator)
    return key, value


def _status(hints: dict[str, str]) -> int:
    for name in STATUS_HINTS:
        value = hints.get(name, "")
        if value.isdigit() and int(value) in STATUSES:
            return int(value)
    return GONE


def _target(item: str) -> tuple[tuple[tuple[object, ...], ...], bytes, bool]:
    if item.startswith("//"):
        return _double_hash(item[2:]), b"", False
    for namespace in ("ipfs", "ipld", "ipns"):
        if item.startswith(f"/{namespace}/"):
            name, _, below = item[len(namespace) + 2 :].partition("/")
            path, is_prefix = _path(below)
            return (("ipns" if namespace == "ipns" else "ipfs", _named(namespace, name)),), path, is_prefix
    raise InvalidError(f"{item[:40]!r} is neither /ipfs/, /ipns/ nor a double hash")


def _named(namespace: str, name: str) -> object:
    if not name:
        raise InvalidError("the rule names nothing")
    if namespace != "ipns":
        return CID.parse(name).multihash
    return name_key(name)


def name_key(name: str) -> object:
    """What an IPNS name is found by: the multihash of a key in whatever form, else the domain."""
    try:
        return CID.parse(name).multihash
    except InvalidError:
        return name.lower().rstrip(".")


def _path(below: str) -> tuple[bytes, bool]:
    is_prefix = below.endswith("*")
    path = unquote_to_bytes(below.removesuffix("*")).strip(b"/")
    if len(path) > PATH_BYTES_MAX:
        raise InvalidError(f"a path longer than {PATH_BYTES_MAX} bytes")
    return path, is_prefix


def _double_hash(text: str) -> tuple[tuple[object, ...], ...]:
    keys: list[tuple[object, ...]] = []
    if len(text) == HEX_DIGITS:
        with contextlib.suppress(ValueError):
            keys.append(("hash", SHA2_256, bytes.fromhex(text)))
    try:
        cid = CID.parse(text) if text.startswith("Qm") else CID.decode(b"\x01\x55" + decode_base58(text))
        keys.append(("hash", cid.hash_code, cid.digest))
    except FungiStorError:
        pass
    if not keys:
        raise InvalidError(f"{text[:40]!r} is neither a multihash in base58 nor 64 hex digits")
    return tuple(keys)
