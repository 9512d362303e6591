"""Which Host gives what: the operator's table, in the shape of Kubo's `Gateway.PublicGateways`, and its matching.

No I/O. `virtual_hosts` asks it for each request, `check` for a person.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from fungistor.errors import InvalidError

HOSTS_BYTES_MAX = 1 << 20
HOSTS_MAX = 10_000
REMEMBERED_MAX = 1024
"""Hosts whose place is remembered: the same few come again and again, and a place takes tens of microseconds."""

_KEYS = {"Paths", "UseSubdomains", "NoDNSLink", "InlineDNSLink", "DeserializedResponses"}
_HOST = re.compile(r"(?:\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?")
_NAMESPACE_LABEL = re.compile(r"\.(ipfs|ipns)(?=\.)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HostConfig:
    """What one Host gives. The fields are Kubo's, by their meaning."""

    paths: tuple[str, ...] = ("/ipfs", "/ipns")
    use_subdomains: bool = False
    no_dnslink: bool = False
    inline_dnslink: bool = False
    deserialized: bool = True

    def serves(self, path: str) -> bool:
        """Tell whether a request's path lies below one of this Host's."""
        return any(path == allowed or path.startswith(f"{allowed}/") for allowed in self.paths)


LOCALHOST = HostConfig(use_subdomains=True)
ANY_HOST = HostConfig()


class PlaceKind(Enum):
    """What a Host is to this gateway."""

    GATEWAY = "gateway"
    SUBDOMAIN = "subdomain"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Place:
    """What a Host is: a gateway of the table, the subdomain of one, or neither."""

    kind: PlaceKind
    config: HostConfig
    gateway: str = ""
    """The gateway's authority with the port of the request."""
    namespace: str = ""
    label: str = ""
    """What stands before ``.ipfs.`` or ``.ipns.``; it may have dots."""


class HostTable:
    """Known Hosts, exact ones and wildcards (``*.example.com`` is one label more)."""

    def __init__(self, hosts: Mapping[str, HostConfig], *, no_dnslink: bool = False) -> None:
        self._exact = {name: config for name, config in hosts.items() if not name.startswith("*.")}
        self._wild = {name[2:]: config for name, config in hosts.items() if name.startswith("*.")}
        self.unknown = HostConfig(no_dnslink=no_dnslink)
        self._places: dict[str, Place] = {}

    def place(self, host: str) -> Place:
        """Tell what a Host (with or without its port) is. The longest gateway name under a subdomain wins."""
        known = self._places.get(host)
        if known is None:
            known = self._place(host)
            if len(self._places) >= REMEMBERED_MAX:
                self._places.clear()
            self._places[host] = known
        return known

    def _place(self, host: str) -> Place:
        name = host.lower().rstrip(".")
        config = self._find(name)
        if config is not None:
            return Place(PlaceKind.GATEWAY, config, host)
        for split in _NAMESPACE_LABEL.finditer(host):
            label, namespace, gateway = host[: split.start()], split.group(1).lower(), host[split.end() + 1 :]
            config = self._find(gateway.lower())
            if label and config is not None and config.use_subdomains and config.serves(f"/{namespace}"):
                return Place(PlaceKind.SUBDOMAIN, config, gateway, namespace, label)
        return Place(PlaceKind.UNKNOWN, self.unknown)

    def _find(self, name: str) -> HostConfig | None:
        bare = without_port(name)
        for form in (name, bare):
            if form in self._exact:
                return self._exact[form]
        _, _, parent = name.partition(".")
        _, _, bare_parent = bare.partition(".")
        return self._wild.get(parent) or self._wild.get(bare_parent)

    def names(self) -> list[str]:
        """List the table's hosts, wildcards as they were written."""
        return sorted((*self._exact, *(f"*.{name}" for name in self._wild)))


def without_port(host: str) -> str:
    """Return an authority without its port; an IPv6 address keeps its brackets."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and (":" not in name or name.endswith("]")) else host


def is_address(host: str) -> bool:
    """Tell whether a Host is an IP address, which has no names below it and no DNSLink."""
    try:
        ipaddress.ip_address(without_port(host).strip("[]"))
    except ValueError:
        return False
    return True


@lru_cache(maxsize=REMEMBERED_MAX)
def may_have_dnslink(host: str) -> bool:
    """Tell whether DNS could know this Host: a name of several labels that is no address."""
    name = without_port(host).rstrip(".")
    return "." in name and not name.endswith(".localhost") and not is_address(host)


def default_hosts() -> HostTable:
    """Without a table: `localhost` has subdomains, and every other Host is a path gateway or a DNSLink website."""
    return HostTable({"localhost": LOCALHOST})


def load_hosts(path: str | None) -> HostTable:
    """Read the operator's file; the default without one.

    Raises: InvalidError naming the file, and the host and key in it.
    """
    if path is None:
        return default_hosts()
    try:
        with open(path, "rb") as file:
            content = file.read(HOSTS_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidError(f"--gateway-hosts: {path} cannot be read: {(error.strerror or '').lower()}") from error
    if len(content) > HOSTS_BYTES_MAX:
        raise InvalidError(f"--gateway-hosts: {path} is longer than {HOSTS_BYTES_MAX} bytes")
    try:
        return parse_hosts(content.decode("utf-8", "replace"))
    except InvalidError as error:
        raise InvalidError(f"--gateway-hosts: {path}: {error.message}", hint=error.hint) from error


def parse_hosts(text: str) -> HostTable:
    """Read the operator's table: `{HOST: {"UseSubdomains": true, ...} | null}`.

    The shape of Kubo's `Gateway.PublicGateways`, or of its whole `Gateway` with `NoDNSLink` and
    `DeserializedResponses` beside it. `null` takes a default away.

    Raises: InvalidError naming the host and the key.
    """
    try:
        table = json.loads(text)
    except ValueError as error:
        raise InvalidError(f"the table of hosts is no JSON: {error}", hint="see docs/gateway-hosts.md") from error
    table = _mapping(table, "the table of hosts")
    no_dnslink, deserialized = False, True
    if "PublicGateways" in table:
        no_dnslink = _flag(table, "NoDNSLink", "Gateway", default=False)
        deserialized = _flag(table, "DeserializedResponses", "Gateway", default=True)
        table = _mapping(table["PublicGateways"], "PublicGateways")
    if len(table) > HOSTS_MAX:
        raise InvalidError(f"the table names {len(table)} hosts, at most {HOSTS_MAX} are read")
    hosts: dict[str, HostConfig] = {"localhost": LOCALHOST}
    for name, entry in table.items():
        lower = name.lower().rstrip(".")
        if not _HOST.fullmatch(lower):
            raise InvalidError(f"{name!r} is no host name", hint="write example.com, example.com:8080 or *.example.com")
        if entry is None:
            hosts.pop(lower, None)
            continue
        hosts[lower] = _host(name, _mapping(entry, name), no_dnslink=no_dnslink, deserialized=deserialized)
    return HostTable(hosts, no_dnslink=no_dnslink)


def _host(name: str, entry: Mapping[str, object], *, no_dnslink: bool, deserialized: bool) -> HostConfig:
    unknown = set(entry) - _KEYS
    if unknown:
        raise InvalidError(f"host {name}: unknown key {min(unknown)!r}", hint=f"known are {', '.join(sorted(_KEYS))}")
    paths = entry.get("Paths") or ["/ipfs", "/ipns"]
    if not isinstance(paths, list) or not all(isinstance(path, str) and path.startswith("/") for path in paths):
        raise InvalidError(f"host {name}: Paths is no list of paths", hint='write ["/ipfs", "/ipns"]')
    config = HostConfig(
        paths=tuple(path.rstrip("/") for path in paths),
        use_subdomains=_flag(entry, "UseSubdomains", name, default=False),
        no_dnslink=_flag(entry, "NoDNSLink", name, default=no_dnslink),
        inline_dnslink=_flag(entry, "InlineDNSLink", name, default=False),
        deserialized=_flag(entry, "DeserializedResponses", name, default=deserialized),
    )
    if config.use_subdomains and is_address(name):
        raise InvalidError(f"host {name}: an address has no subdomains", hint="take UseSubdomains away, or use a name")
    return config


def _mapping(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InvalidError(f"{what} is no JSON object", hint='write {"example.com": {"UseSubdomains": true}}')
    return value


def _flag(entry: Mapping[str, object], key: str, name: str, *, default: bool) -> bool:
    value = entry.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidError(f"host {name}: {key} is neither true nor false")
    return value
