"""Links that let whoever has one read a path of a private object for a time: made here, asked of every gateway."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from fungistor.dag.walk import resolve
from fungistor.errors import InvalidError
from fungistor.keys.links import EXPIRES_MAX, Link, sign_link
from fungistor.node.config import load_config
from fungistor.node.network import Network
from fungistor.objects.access import Reader
from fungistor.objects.paths import CidPath
from fungistor.objects.results import Json


@dataclass(frozen=True, slots=True)
class SignedLink:
    """A link as it is told. `private`: without it nobody but the tenant could read this."""

    cid: str
    path: str
    url: str
    expires: int
    form: str
    tenant: str
    private: bool

    def to_json(self) -> Json:
        """The keys of `--json`."""
        return {
            "cid": self.cid,
            "path": self.path,
            "url": self.url,
            "expires": self.expires,
            "format": self.form or None,
            "tenant": self.tenant,
            "private": self.private,
        }


def make_link(
    network: Network,
    path: CidPath,
    lasts_s: int,
    form: str = "",
    base: str | None = None,
    clock: Callable[[], float] = time.time,
) -> SignedLink:
    """Sign a link to what stands at a path now.

    Raises: NotFoundError where nothing does that the tenant may read; InvalidError for a base that is no URL.
    """
    reader = Reader(network.tenant)
    with network.content.open(path.cid, reader) as source:
        resolve(source, path.cid, path.segments)
    tenant = network.catalog.tenants.tenant(network.tenant)
    assert tenant is not None
    names = tuple(os.fsencode(name) for name in path.segments)
    expires = int(clock()) + lasts_s
    if not 0 < expires <= EXPIRES_MAX:
        raise InvalidError("a link ends after at most some ten thousand years")
    link = Link(tenant.number, path.cid.to_v1().encode(), names, form, expires)
    signature = sign_link(link, network.parts.keys.tenant_key(tenant.number), tenant.link_epoch)
    shown = "/".join(("", "ipfs", str(path.cid), *(quote(name, safe="") for name in names)))
    asked = f"format={form}&" if form else ""
    url = f"{_base(network, base)}{shown}?{asked}exp={expires}&sig={signature}"
    return SignedLink(str(path.cid), shown, url, expires, form, tenant.name, reader.met_private)


def _base(network: Network, said: str | None) -> str:
    """Where the link leads: where the operator says that the gateway is reached, else where it listens."""
    if said is not None:
        if not said.startswith(("http://", "https://")) or "?" in said or "#" in said:
            raise InvalidError(f"{said[:80]!r} is no URL of a gateway", hint="as in --base https://gw.example.com")
        return said.rstrip("/")
    home = network.parts.home
    announced = load_config(home).announce
    running = home.running()
    if announced:
        return announced[0].rstrip("/")
    return running.gateway.rstrip("/") if running is not None and running.gateway else ""
