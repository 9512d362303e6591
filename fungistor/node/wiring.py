"""The one file that joins the use cases' ports to what stands behind them, for every command and worker."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from fungistor.cache.flight import Flights
from fungistor.cache.memory import MemoryCache
from fungistor.cache.tiers import Cache
from fungistor.catalog.catalog import Catalog
from fungistor.catalog.index import BlockIndex
from fungistor.catalog.log import Log
from fungistor.catalog.state import State
from fungistor.coding.manifest import Slot
from fungistor.errors import FungiStorError, NotFoundError
from fungistor.ids import OWN_TENANT, StripeId
from fungistor.keys.held import held_node_keys
from fungistor.keys.ring import NodeKeys
from fungistor.keys.store import KeyStore
from fungistor.node.acting import Acting
from fungistor.node.allocator import keep_freed_memory
from fungistor.node.cache_place import open_cache_disk
from fungistor.node.catalog_log import open_home_log
from fungistor.node.catalog_place import open_keys
from fungistor.node.config import Config, load_config
from fungistor.node.copies.copier import Copier
from fungistor.node.copies.keys import CopiedKeys
from fungistor.node.damage import DamageNotes
from fungistor.node.home import Home
from fungistor.node.members import check_known, last_states, member_specs, placement_tables, pool_members, unknown_spec
from fungistor.node.network import Network, Parts
from fungistor.node.offline import OfflineNetwork
from fungistor.node.snapshots import Snapshots
from fungistor.objects.content import Content
from fungistor.objects.source import ReadThreads
from fungistor.objects.stripe_reader import OnCorrupt, StripeReader
from fungistor.pool.members import MemberSpec
from fungistor.pool.pool import Pool

READ_THREADS = 3
"""Two threads read at the speed of two cores; a third keeps them busy while one waits for a slow member."""

log = logging.getLogger("fungistor")


def open_offline() -> OfflineNetwork:
    """What needs no home: nothing is stored or read."""
    return OfflineNetwork(sys.stdin.buffer)


def open_network(home: Home | str, *, cached: bool = False, acting: Acting | None = None) -> Network:
    """Join everything that a command, a gateway worker or `up` itself needs. Close it after use.

    `acting`: for whom; else for the network's own tenant.
    `cached`: what is read is kept in the home's cache and in memory, and read from there. For gateways: a command that
    says whether an object can be had must ask the members.

    Raises:
        InvalidError, DeniedError, FailedError, CorruptError: a file of the home cannot be used, and which.
    """
    keep_freed_memory()
    home = home if isinstance(home, Home) else Home(os.path.abspath(home))
    running = home.running()
    sync = running.sync if running is not None else True
    keys = held_node_keys(os.path.join(home.keys, "node.key"))
    config = load_config(home)
    table = open_keys(home, config, keys.network_key, sync=sync)
    state = State(home.catalog_state)
    catalog_log, claimed = open_home_log(home, config, keys.network_key, state, sync=sync)
    copier = Copier(home, keys.network_key, catalog_log, table, state.snapshots, claimed)
    key_table = CopiedKeys(table, copier)
    catalog = _catalog(home, config, keys, key_table, catalog_log, state, copier)
    os.makedirs(home.index, mode=0o700, exist_ok=True)
    index = BlockIndex(home.block_index)
    catalog.catch_up()
    members = pool_members(home, config)
    newest = catalog.layout()
    try:
        tenant = OWN_TENANT if acting is None else acting.tenant(catalog, keys)
        if config.pool is not None:
            check_known(members, newest, config.pool)
    except FungiStorError:
        for opened in (catalog, index, key_table):
            opened.close()
        raise
    specs, numbers = member_specs(members, newest, keys)
    pool = Pool(specs, placement_tables(catalog), left=placement_tables(catalog, left=True), here=config.here)
    copier.attach(pool)
    if hints := last_states(home, numbers):
        pool.hint_states(hints)
    corrupt_seen = _corrupt_reporter(pool, DamageNotes(home))
    cache = open_cache(home, config) if cached else None
    threads = ReadThreads(StripeReader(pool, corrupt_seen, cache), READ_THREADS)
    content = Content(catalog, index, keys, key_table, threads)
    return Network(
        Parts(
            home,
            keys,
            key_table,
            catalog,
            index,
            pool,
            members,
            numbers,
            content,
            threads,
            corrupt_seen,
            tenant,
            sync,
            open_snapshots(home, config, keys),
            copier,
            cache,
            config.pool,
        )
    )


@contextlib.contextmanager
def open_catalog(home: Home) -> Iterator[tuple[Catalog, NodeKeys, KeyStore]]:
    """The catalog and its keys alone, for what needs no member.

    Raises: NotFoundError where there is no network in that home; as `open_network`.
    """
    home.check_version()
    if not home.exists():
        raise NotFoundError(f"there is no network in {home.root} yet", hint="`fungistor up` begins one")
    running = home.running()
    sync = running is None or running.sync
    keys = held_node_keys(os.path.join(home.keys, "node.key"))
    config = load_config(home)
    state = State(home.catalog_state)
    catalog_log, _ = open_home_log(home, config, keys.network_key, state, sync=sync)
    with (
        contextlib.closing(open_keys(home, config, keys.network_key, sync=sync)) as key_table,
        contextlib.closing(_catalog(home, config, keys, key_table, catalog_log, state, None)) as catalog,
    ):
        yield catalog, keys, key_table


def _catalog(
    home: Home,
    config: Config,
    keys: NodeKeys,
    key_table: KeyStore,
    catalog_log: Log,
    state: State,
    copies: Copier | None,
) -> Catalog:
    return Catalog(
        catalog_log,
        state,
        is_remote=config.catalog is not None,
        # A record that this node knows is one whose key it has: whatever ends the shared table's being there.
        prepare=key_table.follow,
        signer=keys,
        bridge=open_snapshots(home, config, keys).chunks,
        copies=copies,
    )


def open_snapshots(home: Home, config: Config, keys: NodeKeys) -> Snapshots:
    """Snapshots on the members that the pool file has now: their layout may not be known yet, so neither are they."""

    def members() -> list[MemberSpec]:
        return [unknown_spec(member) for member in pool_members(home, config)]

    return Snapshots(home, keys.network_key, members)


def open_cache(home: Home, config: Config) -> Cache:
    """The cache of a home, which all its processes share but for the memory."""
    disk = open_cache_disk(home, config) if config.gateway_cache_bytes else None
    return Cache(MemoryCache(config.gateway_memory_bytes), disk, Flights(home.cache_lock if disk else None))


def _corrupt_reporter(pool: Pool, notes: DamageNotes) -> OnCorrupt:
    """Name each lying shard once: a reader in a loop must not flood the log."""
    seen: set[tuple[StripeId, int]] = set()

    def report(slot: Slot, index: int) -> None:
        if (slot.stripe_id, index) in seen or len(seen) > 10_000:
            return
        seen.add((slot.stripe_id, index))
        notes.note(slot, index)
        member = pool.window(slot.stripe_id, slot.layout, slot.k + slot.m)[index]
        log.warning("member %s gave a corrupt shard (index %d); it was read around", pool.name(member), index)

    return report
