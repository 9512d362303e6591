"""From Host and path to content: the hostname layer of the gateway specifications.

`decide` is pure but for one question, whether a domain name has a DNSLink. It is asked only for names that DNS could
know, and its answer may come from a cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from fungistor.dag.cid import CID, LIBP2P_KEY
from fungistor.errors import InvalidError
from fungistor.names.dnslink import DOMAIN_NAME
from fungistor.names.key import name_text, parse_key
from gateway import paths
from gateway.errors import RefusedError
from gateway.hosts import REMEMBERED_MAX, HostConfig, HostTable, Place, PlaceKind, is_address, may_have_dnslink
from gateway.mounts import PATH_MOUNT, Mount, Standing
from gateway.requests import Answer, redirect

LABEL_CHARS_MAX = 63
HOST_CHARS_MAX = 1300
"""A name in DNS has 253 letters; a proxy's client may write the longest CID where a label would be."""

_AUTHORITY = re.compile(r"[A-Za-z0-9_.-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_CONTENT = (b"/ipfs/", b"/ipns/")
_ROOTED = re.compile(rb"/(?:ipfs/+(?!(?:ipfs|ipns)(?:/|$))|ipns/+)[^/]")
"""A path that names a root; ``/ipfs/ipns/NAME`` is shortened first."""
_OWN = (b"/-/", b"/routing/v1/")

HasDnslink = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the hostname layer sees it. `host` may come from a trusted proxy."""

    host: str
    scheme: str
    raw_path: bytes
    suffix: str = ""
    """``?query`` as it came."""
    is_verifiable: bool = False
    """A block, CAR or record is asked for: nothing that a browser would run, so it needs no origin of its own."""

    @property
    def is_content(self) -> bool:
        return self.raw_path.startswith(_CONTENT) or self.raw_path in (b"/ipfs", b"/ipns")


@dataclass(frozen=True, slots=True)
class Mounted:
    """The content path that was asked for, and where it stands."""

    raw_path: bytes
    mount: Mount


@dataclass(frozen=True, slots=True)
class OwnPage:
    """A path of the gateway's own: its front page, health, routing."""


Decision = Answer | Mounted | OwnPage


def decide(table: HostTable, asked: Asked, has_dnslink: HasDnslink) -> Decision:
    """Tell what a request is for.

    Raises:
        InvalidError: a Host or path that cannot be, or (404) a Host that gives nothing here.
    """
    check_host(asked.host)
    place = table.place(asked.host)
    if place.kind is PlaceKind.SUBDOMAIN:
        return _subdomain(asked, place)
    if place.kind is PlaceKind.GATEWAY:
        return _gateway(asked, place, has_dnslink)
    return _unknown(asked, place.config, has_dnslink)


def check_host(host: str) -> None:
    """Refuse what cannot be an authority: it is written into redirects and pages.

    Raises: RefusedError (400).
    """
    if host and (len(host) > HOST_CHARS_MAX or not _AUTHORITY.fullmatch(host)):
        raise RefusedError(400, "the Host of the request is no host name", hint="send one Host: NAME[:PORT]")


def needs_dns(table: HostTable, asked: Asked) -> bool:
    """Tell whether `decide` will ask for a DNSLink, so that whoever must not wait can ask elsewhere first."""
    place = table.place(asked.host)
    if place.kind is PlaceKind.SUBDOMAIN or place.config.no_dnslink or not may_have_dnslink(asked.host):
        return False
    return place.kind is PlaceKind.UNKNOWN or not _is_of_gateway(asked, place.config)


def _gateway(asked: Asked, place: Place, has_dnslink: HasDnslink) -> Decision:
    config = place.config
    if _is_of_gateway(asked, config):
        if config.use_subdomains and not asked.is_verifiable and _ROOTED.match(asked.raw_path):
            return redirect_to_subdomain(asked, place)
        return Mounted(asked.raw_path, Mount(host=asked.host, is_trustless=not config.deserialized))
    if not config.no_dnslink and may_have_dnslink(asked.host) and has_dnslink(bare(asked.host)):
        return _website(asked, config)
    if asked.is_content:
        raise RefusedError(
            404, f"{bare(asked.host)} gives nothing below {_first_part(asked)}", hint=f"it has {_listed(config)}"
        )
    return OwnPage()


def _unknown(asked: Asked, config: HostConfig, has_dnslink: HasDnslink) -> Decision:
    if not config.no_dnslink and may_have_dnslink(asked.host) and has_dnslink(bare(asked.host)):
        return _website(asked, config)
    if asked.is_content:
        return Mounted(asked.raw_path, PATH_MOUNT)
    if may_have_dnslink(asked.host) and not asked.raw_path.startswith(_OWN):
        raise RefusedError(
            404,
            f"{bare(asked.host)} is no gateway of this node and has no DNSLink",
            hint="any Host gives /ipfs/CID; `fungistor up --gateway-hosts` names the Hosts that are gateways",
        )
    return OwnPage()


def _website(asked: Asked, config: HostConfig) -> Mounted:
    name = bare(asked.host)
    mount = Mount(Standing.DNSLINK, f"/ipns/{name}", asked.host, is_trustless=not config.deserialized)
    return Mounted(mount.prefix.encode() + asked.raw_path, mount)


def _subdomain(asked: Asked, place: Place) -> Decision:
    root = _root_of_label(asked, place)
    if isinstance(root, Answer):
        return root
    mount = Mount(
        Standing.SUBDOMAIN,
        f"/{place.namespace}/{root}",
        asked.host,
        place.gateway,
        is_trustless=not place.config.deserialized,
    )
    return Mounted(mount.prefix.encode() + asked.raw_path, mount)


def _root_of_label(asked: Asked, place: Place) -> str | Answer:
    """Say which root a label means, or redirect to the label that it should be."""
    label = place.label
    if place.namespace == "ipfs":
        # What is said in another base or version has one origin, not two.
        wanted = _label_of_cid(label)
        return wanted if wanted == label.lower() else _moved(asked, place, "ipfs", wanted)
    key = parse_key(label)
    if key is not None:
        wanted = dns_label(key)
        return wanted if wanted == label.lower() else _moved(asked, place, "ipns", wanted)
    name = label if "." in label else uninline(label)
    _check_dns_name(name)
    if "." in label and asked.scheme == "https":
        # A wildcard certificate covers one label.
        return _moved(asked, place, "ipns", inline(label))
    return name.lower()


@lru_cache(maxsize=REMEMBERED_MAX)
def _label_of_cid(label: str) -> str:
    try:
        return dns_label(CID.parse(label))
    except RefusedError:
        raise
    except InvalidError as error:
        raise _invalid_path(f"/ipfs/{label}", error) from error


def redirect_to_subdomain(asked: Asked, place: Place) -> Answer:
    """Send a path request to the origin of its root.

    Raises: RefusedError (400) for a root that no label can say.
    """
    path = _parse(asked.raw_path)
    if path.namespace == "ipfs":
        try:
            label = dns_label(CID.parse(path.root))
        except RefusedError:
            raise
        except InvalidError as error:
            raise _invalid_path(path.text, error) from error
    else:
        label = _name_label(path.root, asked, place.config)
    below = paths.join("", "", path.segments)[2:] if path.segments else ""
    slash = "/" if path.is_slashed or not path.segments else ""
    location = f"{asked.scheme}://{label}.{path.namespace}.{place.gateway}{below}{slash}{asked.suffix}"
    answer = redirect(location)
    # A browser that did not follow would hold the publisher's cookies for the whole gateway.
    answer.headers["Clear-Site-Data"] = '"cookies", "storage"'
    return answer


def _name_label(root: str, asked: Asked, config: HostConfig) -> str:
    key = parse_key(root)
    if key is not None:
        return dns_label(key)
    _check_dns_name(root)
    # A name without dots is a label already, but one with `-` would be taken for an inlined one.
    if "." not in root or config.inline_dnslink or asked.scheme == "https":
        return inline(root.lower())
    return root.lower()


def dns_label(cid: CID) -> str:
    """Write a CID as one DNS label: base32, base36 for keys and where base32 is too long.

    Raises: RefusedError (400) where no base is short enough.
    """
    v1 = cid.to_v1()
    text = name_text(v1) if v1.codec == LIBP2P_KEY else v1.text("base32")
    if len(text) > LABEL_CHARS_MAX:
        text = v1.text("base36")
    if len(text) > LABEL_CHARS_MAX:
        raise _too_long()
    return text


def inline(name: str) -> str:
    """Write a DNS name as one label: ``.`` becomes ``-`` and ``-`` becomes ``--``.

    Raises: RefusedError (400) where the label would be too long.
    """
    label = name.replace("-", "--").replace(".", "-")
    if len(label) > LABEL_CHARS_MAX:
        raise RefusedError(400, f"DNSLink name incompatible with DNS label length limit of {LABEL_CHARS_MAX}: {name}")
    return label


def uninline(label: str) -> str:
    """Undo `inline`. A label without ``-`` is a name of one label."""
    return label.replace("--", "\0").replace("-", ".").replace("\0", "-")


def _parse(raw_path: bytes) -> paths.ContentPath:
    try:
        return paths.parse(raw_path)
    except InvalidError as error:
        raise _invalid_path(raw_path.decode("latin-1"), error) from error


def _moved(asked: Asked, place: Place, namespace: str, label: str) -> Answer:
    target = asked.raw_path.decode("ascii", "replace")
    safe = "".join(char if "!" <= char <= "~" else "%3F" for char in target)
    return redirect(f"{asked.scheme}://{label}.{namespace}.{place.gateway}{safe}{asked.suffix}")


def _check_dns_name(name: str) -> None:
    if not DOMAIN_NAME.fullmatch(name):
        raise RefusedError(400, f'invalid path "/ipns/{name[:80]}": neither a key nor a DNS name')


def _is_of_gateway(asked: Asked, config: HostConfig) -> bool:
    path = asked.raw_path.decode("latin-1")
    return config.serves(path) and asked.is_content


def _invalid_path(path: str, error: InvalidError) -> RefusedError:
    return RefusedError(400, f'invalid path "{path[:200]}": {error.message}', hint=error.hint)


def _too_long() -> RefusedError:
    return RefusedError(
        400,
        f"CID incompatible with DNS label length limit of {LABEL_CHARS_MAX}",
        hint="ask a path gateway for it: its Host has no subdomains",
    )


def _first_part(asked: Asked) -> str:
    return "/" + asked.raw_path.split(b"/", 2)[1].decode("ascii", "replace")


def _listed(config: HostConfig) -> str:
    return ", ".join(config.paths) or "no paths"


def bare(host: str) -> str:
    """Return a Host as a domain name: lower case, without port and final dot."""
    name = host.lower()
    return (name if is_address(name) else name.partition(":")[0]).rstrip(".")
