"""The pool file: TOML, one table a member. Written for embedded members, read from anybody and never trusted."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import tomli_w

from fungistor.errors import FailedError, InvalidError
from fungistor.ids import MemberId
from fungistor.node.files import read_bounded, write_atomic
from fungistor.zdb.client import Tls

POOL_FILE_BYTES_MAX = 1 << 20
POOL_MEMBERS_MAX = 4096
"""More members than rows of the placement table would leave some without a shard."""

PASSWORD_FILE_BYTES_MAX = 4096
PASSWORD_BYTES_MAX = 63
"""What NSSET takes; a longer one could never have been set."""

NAMESPACE_BYTES_MAX = 128
ZONE_PARTS_MAX = 8
ZONE_PART_CHARACTERS_MAX = 64
WEIGHT_MAX = 1 << 20
CAPACITY_BYTES_MAX = 1 << 60

POLICIES = "policy"
"""Tables of this name are no members."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ZONE_PART = re.compile(r"[^\x00-\x20/\x7f]+")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?")
_CAPACITY = re.compile(r"(\d{1,19})\s*(B|[kKMGTP]i?B?)?")
_UNITS = {"": 0, "B": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}

_V = TypeVar("_V")

TLS_PATHS = ("tls_ca", "tls_cert", "tls_key")


@dataclass(frozen=True, slots=True)
class PoolMember:
    """One ZDB namespace with a place in the world.

    `address` is `HOST:PORT`, `[IPV6]:PORT` or the absolute path of a unix socket. `zone` is from the widest to the
    narrowest thing that dies together: country, site, host, disk. `durable`: what it acknowledged is on its disk.
    """

    id: MemberId
    address: str
    namespace: str
    password: str = field(repr=False, default="")
    zone: tuple[str, ...] = ()
    capacity: int | None = None
    weight: int = 1
    """Its share beside others'; 0 takes no more shards, and what it has moves away."""
    lat: float | None = None
    lon: float | None = None
    tls: bool = False
    tls_ca: str = ""
    """Path of the authorities that sign its certificate, in PEM; without it those that this system believes."""
    tls_cert: str = ""
    tls_key: str = ""
    """Paths of what to show it, where it asks; the key may be in the certificate's file."""
    durable: bool = False

    @property
    def trust(self) -> Tls | None:
        """How to know it, where it is reached by TLS."""
        return Tls(self.tls_ca, self.tls_cert, self.tls_key) if self.tls else None


def load_pool(path: str) -> tuple[PoolMember, ...]:
    """Read a pool file, in its order.

    Raises: InvalidError naming the line or the member and key; FailedError where it cannot be read.
    """
    try:
        content = read_bounded(path, POOL_FILE_BYTES_MAX)
    except OSError as error:
        raise FailedError(f"the pool file {path} cannot be read: {error.strerror}") from error
    if content is None:
        raise InvalidError(f"the pool file {path} is longer than {POOL_FILE_BYTES_MAX} bytes")
    return parse_pool(content, path)


def load_policy_tables(path: str) -> list[object]:
    """Read what a pool file says of policies, as it stands there.

    Raises: as `load_pool`.
    """
    try:
        content = read_bounded(path, POOL_FILE_BYTES_MAX)
    except OSError as error:
        raise FailedError(f"the pool file {path} cannot be read: {error.strerror}") from error
    policies = parse_document(content or b"", path).get(POLICIES, [])
    return policies if isinstance(policies, list) else []


def parse_document(content: bytes, path: str) -> dict[str, object]:
    """Read the TOML of a pool file. Raises: InvalidError."""
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidError(f"{path}: line {line} is no UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{path} is no TOML: {error}") from error


def parse_pool(content: bytes, path: str) -> tuple[PoolMember, ...]:
    """Read the bytes of a pool file; `path` names it in errors, and `password_file` is relative to its folder.

    Members are `[[member]]` tables, or `[NAME]` tables whose id is NAME unless they say another. `[[policy]]` tables
    are not looked at here.

    Raises: InvalidError naming the line or the member and key.
    """
    document = parse_document(content, path)
    members: list[PoolMember] = []
    for where, table in _tables(document, path):
        if len(members) == POOL_MEMBERS_MAX:
            raise InvalidError(f"{path}: more than {POOL_MEMBERS_MAX} members")
        members.append(_member(_Table(table, f"{path}: {where}"), os.path.dirname(path)))
    if not members:
        raise InvalidError(f"{path}: no member in it", hint='write one table a member: [[member]], then id = "m01"')
    _refuse_twins(members, path)
    return tuple(members)


def save_pool(path: str, members: Iterable[PoolMember]) -> None:
    """Write a pool file that only its owner can read.

    Raises: OSError.
    """
    write_atomic(path, pool_text(members).encode(), mode=0o600)


def pool_text(members: Iterable[PoolMember]) -> str:
    """What a pool file of these members says, passwords and all."""
    return tomli_w.dumps({"member": [_to_table(member) for member in members]})


def _to_table(member: PoolMember) -> dict[str, object]:
    table: dict[str, object] = {
        "id": str(member.id),
        "address": member.address,
        "namespace": member.namespace,
        "password": member.password,
        "zone": "/".join(member.zone),
        "weight": member.weight,
        "tls": member.tls,
        "durable": member.durable,
    }
    table |= {key: path for key in TLS_PATHS if (path := getattr(member, key))}
    if member.capacity is not None:
        table["capacity"] = member.capacity
    if member.lat is not None and member.lon is not None:
        table |= {"lat": member.lat, "lon": member.lon}
    return table


def _tables(document: Mapping[str, object], path: str) -> Iterable[tuple[str, dict[str, object]]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield f"[{key}]", {"id": key, **value}
        elif key == POLICIES and isinstance(value, list):
            continue
        elif isinstance(value, list):
            for position, table in enumerate(value, 1):
                where = f"[[{key}]] number {position}"
                if not isinstance(table, dict):
                    raise InvalidError(f"{path}: {where} is not a table")
                yield where, table
        else:
            raise InvalidError(f"{path}: {key!r} is not a member", hint="write one table a member: [[member]]")


class _Table:
    """A member's table being taken apart: every key is asked for once, and what is left over is refused."""

    def __init__(self, table: dict[str, object], where: str) -> None:
        self._rest = dict(table)
        name = table.get("id")
        self.where = f"{where} ({name})" if isinstance(name, str) and _ID.fullmatch(name) else where

    def take(self, key: str, kind: type[_V], default: _V | None = None) -> _V | None:
        value = self._rest.pop(key, default)
        # bool is an int in Python and not in a pool file
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise self.error(key, f"is not {_NAMES.get(kind, kind.__name__)}")
        return value

    def number(self, key: str, low: float, high: float) -> float | None:
        value = self._rest.pop(key, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.error(key, f"is not a number from {low:g} to {high:g}")
        return float(value)

    def text(self, key: str, check: Callable[[str], bool], what: str) -> str:
        value = self.take(key, str)
        if value is None:
            raise self.error(key, "is missing")
        if not check(value):
            raise self.error(key, f"is not {what}")
        return value

    def error(self, key: str, why: str) -> InvalidError:
        return InvalidError(f"{self.where}: {key} {why}")

    def finish(self) -> None:
        if self._rest:
            raise self.error(", ".join(sorted(map(repr, self._rest)))[:200], "is no key of a member")


_NAMES: dict[type, str] = {str: "text", int: "a whole number", bool: "true or false", object: "a size"}


def _member(table: _Table, folder: str) -> PoolMember:
    name = table.text("id", lambda text: bool(_ID.fullmatch(text)), "1 to 63 letters, digits, dots, - or _")
    address = table.text("address", is_address, "HOST:PORT, [IPV6]:PORT or the absolute path of a socket")
    namespace = table.text("namespace", _is_namespace, f"a namespace of 1 to {NAMESPACE_BYTES_MAX} bytes without /")
    zone = table.take("zone", str, "") or ""
    try:
        parts = parse_zone(zone)
    except InvalidError as error:
        raise table.error("zone", error.message.partition(" ")[2]) from error
    weight = table.take("weight", int, 1)
    if weight is None or not 0 <= weight <= WEIGHT_MAX:
        raise table.error("weight", f"is not from 0 to {WEIGHT_MAX}")
    latitude, longitude = table.number("lat", -90, 90), table.number("lon", -180, 180)
    if (latitude is None) != (longitude is None):
        raise table.error("lat" if latitude is None else "lon", "is missing: a place needs both lat and lon")
    member = PoolMember(
        id=MemberId(name),
        address=address,
        namespace=namespace,
        password=_password(table, folder),
        zone=parts,
        capacity=_capacity(table),
        weight=weight,
        lat=latitude,
        lon=longitude,
        tls=bool(table.take("tls", bool, False)),
        **{key: _path(table, key, folder) for key in TLS_PATHS},
        durable=bool(table.take("durable", bool, False)),
    )
    table.finish()
    return member


def _path(table: _Table, key: str, folder: str) -> str:
    path = table.take(key, str) or ""
    return os.path.abspath(os.path.join(folder, path)) if path else ""


def _password(table: _Table, folder: str) -> str:
    password, file = table.take("password", str), table.take("password_file", str)
    if password is not None and file is not None:
        raise table.error("password", "and password_file are both given")
    key = "password"
    if file is not None:
        key = "password_file"
        try:
            content = read_bounded(os.path.join(folder, file), PASSWORD_FILE_BYTES_MAX)
            password = (content or b"").decode("utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise table.error(key, f"cannot be read: {getattr(error, 'strerror', None) or 'no text'}") from error
        if content is None or not password:
            raise table.error(key, f"is empty or longer than {PASSWORD_FILE_BYTES_MAX} bytes")
    if password is None:
        return ""
    if len(password.encode("utf-8", "surrogatepass")) > PASSWORD_BYTES_MAX or "\0" in password:
        raise table.error(key, f"is longer than {PASSWORD_BYTES_MAX} bytes or holds a zero byte")
    return password


def _capacity(table: _Table) -> int | None:
    value = table.take("capacity", object)
    if value is None:
        return None
    amount = -1
    if isinstance(value, int) and not isinstance(value, bool):
        amount = value
    elif isinstance(value, str) and (match := _CAPACITY.fullmatch(value)):
        unit = match[2] or ""
        base = 1024 if "i" in unit else 1000
        amount = int(match[1]) * base ** _UNITS[unit[:1].upper()]
    if not 0 < amount <= CAPACITY_BYTES_MAX:
        raise table.error("capacity", 'is not bytes or text like "500 GB", at most 1 EiB')
    return amount


def is_address(text: str) -> bool:
    """Tell whether `text` is `HOST:PORT`, `[IPV6]:PORT` or the absolute path of a unix socket."""
    if text.startswith("/"):
        return "\0" not in text and len(os.fsencode(text)) < 108  # sockaddr_un
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65535:
        return False
    if host.startswith("[") and host.endswith("]"):
        return bool(re.fullmatch(r"[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,15})?", host[1:-1]))
    return bool(_HOST.fullmatch(host))


def _is_namespace(text: str) -> bool:
    size = len(text.encode("utf-8", "surrogatepass"))
    return 0 < size <= NAMESPACE_BYTES_MAX and "/" not in text and "\0" not in text and text not in (".", "..")


def parse_zone(text: str) -> tuple[str, ...]:
    """The parts of a zone, `country/site/host/disk`; none of an empty text.

    Raises: InvalidError.
    """
    parts = tuple(text.split("/")) if text else ()
    if len(parts) > ZONE_PARTS_MAX or not all(map(_is_zone_part, parts)):
        raise InvalidError(f"zone is not country/site/host/disk of at most {ZONE_PARTS_MAX} parts without spaces")
    return parts


def _is_zone_part(text: str) -> bool:
    return len(text) <= ZONE_PART_CHARACTERS_MAX and bool(_ZONE_PART.fullmatch(text))


def _refuse_twins(members: list[PoolMember], path: str) -> None:
    ids: set[str] = set()
    places: set[tuple[str, str]] = set()
    for member in members:
        if member.id in ids:
            raise InvalidError(f"{path}: two members have the id {member.id}")
        if (member.address, member.namespace) in places:
            raise InvalidError(
                f"{path}: two members are namespace {member.namespace} at {member.address}",
                hint="one namespace twice would lose two shards at once",
            )
        ids.add(member.id)
        places.add((member.address, member.namespace))
