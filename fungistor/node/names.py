"""Joins the names of a home: the records it was given or signs itself, and the DNS it is configured to ask."""

from __future__ import annotations

from collections.abc import Mapping

from fungistor.catalog.catalog import Catalog
from fungistor.errors import FungiStorError
from fungistor.ids import TenantNumber
from fungistor.keys.ring import NodeKeys
from fungistor.names.dnslink import StaticMap, parse_map
from fungistor.names.dnslink_cache import DnslinkCache
from fungistor.names.resolver import Resolver
from fungistor.names.table import NameTable
from fungistor.node.config import load_config
from fungistor.node.home import Home
from fungistor.objects.names import Keys, OwnNames

MAP_VARIABLE = "IPFS_NS_MAP"


def open_names(home: Home, environment: Mapping[str, str]) -> Resolver:
    """Make the resolver that a gateway worker asks.

    Raises: InvalidError: the configuration or the fixed map is no good, and where.
    """
    from fungistor.names.dns_client import make_lookup  # only who resolves names waits for its imports

    static = StaticMap(parse_map(environment.get(MAP_VARIABLE, "")))
    lookup = make_lookup(load_config(home).dns)
    return Resolver(NameTable(home.name_table), DnslinkCache(lookup, static))


class NamesOfTenants:
    """Joins tenants' names to the table that the gateway's workers read."""

    def __init__(self, home: Home, catalog: Catalog, keys: NodeKeys, key_table: Keys) -> None:
        self._path = home.name_table
        self._catalog = catalog
        self._keys = keys
        self._key_table = key_table
        self._known: dict[TenantNumber, OwnNames] = {}

    def of(self, tenant: TenantNumber) -> OwnNames:
        """One tenant's."""
        names = self._known.get(tenant)
        if names is None:
            table = NameTable(self._path, tenant)
            names = self._known[tenant] = OwnNames(self._catalog, self._keys, self._key_table, table, tenant)
        return names

    def follow(self) -> bool:
        """Take up what changed in the names of every tenant that this node holds, and sign again what is due."""
        failed: FungiStorError | None = None
        for tenant in self._keys.tenant_keys:
            try:
                self.of(tenant).follow()
            except FungiStorError as error:
                failed = error
        if failed is not None:
            raise failed
        return False
