"""``gateway.toml`` of a home: what an operator may change while the gateway serves."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fungistor.dag.cid import CID
from fungistor.errors import InvalidError
from fungistor.limits import MIB
from gateway.requests import AS_EVERY_GATEWAY, Forms

FILE_NAME = "gateway.toml"
FILE_BYTES_MAX = 1 * MIB

CLIENT_BURST = 100
AUTHORIZATION_TIMEOUT_S = 5.0
FOREIGN_BYTES = 1024 * MIB
FOREIGN_TIMEOUT_S = 10.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Limits of one host name."""

    requests: int | None = None
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class OperatorRules:
    """The file's content; the defaults are those without a file."""

    requests: int | None = None
    """Under way in one worker; None: as the settings say."""
    client_requests: int | None = None
    """Under way for one client in one worker; None: a fair share when it is crowded."""
    client_rate: float | None = None
    """Requests a second of one client in one worker, over time."""
    client_burst: int = CLIENT_BURST
    """Requests that a client may send at once before its rate counts."""
    hosts: Mapping[str, HostLimits] = field(default_factory=dict)
    trusted_proxies: tuple[Network, ...] = ()
    denylist_folders: tuple[str, ...] = ()
    """Beside the standard ones."""
    authorization_url: str = ""
    authorization_timeout_s: float = AUTHORIZATION_TIMEOUT_S
    foreign_gateways: tuple[str, ...] = ()
    foreign_roots: frozenset[bytes] = frozenset()
    """Multihashes of roots that may be fetched from elsewhere."""
    foreign_any_root: bool = False
    foreign_bytes: int = FOREIGN_BYTES
    foreign_timeout_s: float = FOREIGN_TIMEOUT_S
    access_log: bool | None = None
    """None: as the command line says."""
    forms: Forms = AS_EVERY_GATEWAY


def load_rules(path: str) -> OperatorRules:
    """Read the file; the defaults where there is none.

    Raises: InvalidError naming the key.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return OperatorRules()
    except OSError as error:
        raise InvalidError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise InvalidError(f"{path} is longer than {FILE_BYTES_MAX} bytes")
    try:
        table = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidError(f"{path} is no TOML: {error}", hint="mend the line, or delete the file") from error
    return _Reader(path).rules(table)


class _Reader:
    """Takes a table apart, and names what is wrong in it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def rules(self, table: dict[str, object]) -> OperatorRules:
        self._known("", table, {"limits", "proxies", "denylists", "authorization", "foreign", "log", "forms"})
        limits = self._section(table, "limits", {"requests", "client_requests", "client_rate", "client_burst", "hosts"})
        proxies = self._section(table, "proxies", {"trusted"})
        lists = self._section(table, "denylists", {"folders"})
        leave = self._section(table, "authorization", {"url", "timeout_s"})
        foreign = self._section(table, "foreign", {"gateways", "roots", "bytes", "timeout_s"})
        roots = self._texts(foreign, "roots", "foreign")
        forms = self._section(table, "forms", {"follow_symlinks", "convert"})
        return OperatorRules(
            requests=self._count(limits, "requests", "limits"),
            client_requests=self._count(limits, "client_requests", "limits"),
            client_rate=self._number(limits, "client_rate", "limits"),
            client_burst=self._count(limits, "client_burst", "limits") or CLIENT_BURST,
            hosts=self._hosts(limits.get("hosts", {})),
            trusted_proxies=tuple(self._network(text) for text in self._texts(proxies, "trusted", "proxies")),
            denylist_folders=tuple(os.path.expanduser(text) for text in self._texts(lists, "folders", "denylists")),
            authorization_url=self._url(leave.get("url", ""), "authorization.url"),
            authorization_timeout_s=self._number(leave, "timeout_s", "authorization") or AUTHORIZATION_TIMEOUT_S,
            foreign_gateways=tuple(
                self._url(text, "foreign.gateways").rstrip("/") for text in self._texts(foreign, "gateways", "foreign")
            ),
            foreign_roots=frozenset(self._root(text) for text in roots if text != "*"),
            foreign_any_root="*" in roots,
            foreign_bytes=self._count(foreign, "bytes", "foreign") or FOREIGN_BYTES,
            foreign_timeout_s=self._number(foreign, "timeout_s", "foreign") or FOREIGN_TIMEOUT_S,
            access_log=self._flag(self._section(table, "log", {"access"}), "access", "log"),
            forms=Forms(
                follow_symlinks=self._flag(forms, "follow_symlinks", "forms") or False,
                convert=self._flag(forms, "convert", "forms") or False,
            ),
        )

    def _section(self, table: dict[str, object], name: str, known: set[str]) -> dict[str, object]:
        section = table.get(name, {})
        if not isinstance(section, dict):
            raise self._wrong(name, "a table")
        self._known(f"{name}.", section, known)
        return section

    def _known(self, prefix: str, table: dict[str, object], known: set[str]) -> None:
        for key in table:
            if key not in known:
                raise InvalidError(
                    f"{self._path}: unknown key {prefix + key!r}", hint=f"known are {', '.join(sorted(known))}"
                )

    def _wrong(self, key: str, what: str) -> InvalidError:
        return InvalidError(f"{self._path}: {key} is not {what}")

    def _count(self, table: dict[str, object], key: str, section: str) -> int | None:
        value = table.get(key)
        if value is None:
            return None
        if type(value) is not int or value < 1:
            raise self._wrong(f"{section}.{key}", "a whole number above 0")
        return value

    def _number(self, table: dict[str, object], key: str, section: str) -> float | None:
        value = table.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise self._wrong(f"{section}.{key}", "a number above 0")
        return float(value)

    def _flag(self, table: dict[str, object], key: str, section: str) -> bool | None:
        value = table.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(f"{section}.{key}", "true or false")
        return value

    def _texts(self, table: dict[str, object], key: str, section: str) -> list[str]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise self._wrong(f"{section}.{key}", "a list of texts")
        return value

    def _network(self, text: str) -> Network:
        try:
            return ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise self._wrong(f"proxies.trusted {text!r}", "an address or a network like 10.0.0.0/8") from None

    def _url(self, value: object, key: str) -> str:
        if value == "":
            return ""
        parts = urlsplit(value) if isinstance(value, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise self._wrong(key, "an http or https URL")
        if parts.username or parts.password:
            raise InvalidError(f"{self._path}: {key} holds a password", hint="a secret in a URL ends up in logs")
        return str(value)

    def _root(self, text: str) -> bytes:
        try:
            return CID.parse(text).multihash
        except InvalidError:
            raise self._wrong(f"foreign.roots {text[:60]!r}", 'a CID, or "*" for any') from None

    def _hosts(self, table: object) -> dict[str, HostLimits]:
        if not isinstance(table, dict):
            raise self._wrong("limits.hosts", "a table")
        hosts: dict[str, HostLimits] = {}
        for name, limits in table.items():
            if not isinstance(limits, dict):
                raise self._wrong(f"limits.hosts.{name}", "a table")
            self._known(f"limits.hosts.{name}.", limits, {"requests", "rate"})
            section = f"limits.hosts.{name}"
            hosts[name.lower()] = HostLimits(
                self._count(limits, "requests", section), self._number(limits, "rate", section)
            )
        return hosts
