"""Joins the names of a home: the records it was given or signs itself, and the DNS it is configured to ask."""

from __future__ import annotations

from collections.abc import Mapping

from fungistor.catalog.catalog import Catalog
from fungistor.ids import TenantNumber
from fungistor.keys.ring import NodeKeys
from fungistor.names.dns_client import make_lookup
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
    static = StaticMap(parse_map(environment.get(MAP_VARIABLE, "")))
    lookup = make_lookup(load_config(home).dns)
    return Resolver(NameTable(home.name_table), DnslinkCache(lookup, static))


def own_names(home: Home, catalog: Catalog, keys: NodeKeys, key_table: Keys, tenant: TenantNumber) -> OwnNames:
    """Join a tenant's names to the table that the gateway's workers read."""
    return OwnNames(catalog, keys, key_table, NameTable(home.name_table, tenant), tenant)
