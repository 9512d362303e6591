"""Joins the names of a home: the records it was given, and the DNS it is configured to ask."""

from __future__ import annotations

from collections.abc import Mapping

from fungistor.names.dns_client import make_lookup
from fungistor.names.dnslink import StaticMap, parse_map
from fungistor.names.dnslink_cache import DnslinkCache
from fungistor.names.resolver import Resolver
from fungistor.names.table import NameTable
from fungistor.node.config import load_config
from fungistor.node.home import Home

MAP_VARIABLE = "IPFS_NS_MAP"


def open_names(home: Home, environment: Mapping[str, str]) -> Resolver:
    """Make the resolver that a gateway worker asks.

    Raises: InvalidError: the configuration or the fixed map is no good, and where.
    """
    static = StaticMap(parse_map(environment.get(MAP_VARIABLE, "")))
    lookup = make_lookup(load_config(home).dns)
    return Resolver(NameTable(home.name_table), DnslinkCache(lookup, static))
