"""A home that joins a network which runs elsewhere: members by a pool file, the catalog by its URL, a node key file."""

from __future__ import annotations

import os
from dataclasses import replace

from fungistor.errors import InvalidError, NotFoundError
from fungistor.keys.files import load_node_keys
from fungistor.keys.ring import NodeKeys
from fungistor.node.catalog_place import CatalogOptions, etcd_log, open_keys, with_options
from fungistor.node.config import Config, load_config, save_config
from fungistor.node.home import Home
from fungistor.node.pool_file import load_pool


def join(home: Home, pool: str | None, asked: CatalogOptions) -> None:
    """Make a home one of a network that runs elsewhere, or see that it is; what was asked is kept in its configuration.

    Raises:
        InvalidError: an option is missing or wrong, or this home has a network of its own.
        NotFoundError: there is no node key in this home, or no catalog at that URL.
        DeniedError: the node key is another network's.
        UnavailableError: the catalog cannot be had, and this home has not joined before.
    """
    home.check_version()
    before = load_config(home)
    if before.pool is None and os.path.exists(home.pool_file):
        raise InvalidError(
            f"{home.root} is the home of a network with members of its own",
            hint="join the other network with another --home",
        )
    wanted = _wanted(before, pool, asked)
    assert wanted.pool is not None
    load_pool(wanted.pool)
    home.prepare()
    keys = joined_keys(home)
    if wanted == before:
        return
    if wanted.catalog != before.catalog:
        _check_catalog(home, wanted, keys)
    save_config(home, wanted)


def joined_keys(home: Home) -> NodeKeys:
    """The keys that a joined home was given. Nothing is ever drawn here. Raises: NotFoundError."""
    path = os.path.join(home.keys, "node.key")
    try:
        return load_node_keys(path)
    except NotFoundError:
        raise NotFoundError(
            f"there is no node key {path}",
            hint="copy a node key file of that network there, mode 0600; never its root key",
        ) from None


def _wanted(before: Config, pool: str | None, asked: CatalogOptions) -> Config:
    place = os.path.abspath(pool) if pool is not None else before.pool
    url = asked.url if asked.url is not None else before.catalog
    if place is None:
        raise InvalidError("--catalog URL names a network whose members are not known", hint="give --pool FILE, too")
    if url is None and before.pool is not None:
        return before  # the catalog is a file of this home, as it was founded
    if url is None:
        raise InvalidError("--pool FILE names members whose catalog is not known", hint="give --catalog URL, too")
    if url.startswith("sqlite:"):
        raise InvalidError(
            f"{url}: a catalog in a file is one home's alone",
            hint="`fungistor catalog migrate URL` moves it to etcd, where several homes share it",
        )
    return replace(with_options(before, replace(asked, url=url)), pool=place)


def _check_catalog(home: Home, wanted: Config, keys: NodeKeys) -> None:
    if home.has_catalog:
        raise InvalidError(
            f"{home.root} follows another catalog already", hint="join with another --home, or take this one away"
        )
    log = etcd_log(wanted)
    try:
        if not log.exists():
            raise NotFoundError(
                f"{wanted.catalog} holds no catalog",
                hint="the first node's `fungistor up --catalog URL` makes it; mind the prefix behind the hosts",
            )
    finally:
        log.close()
    table = open_keys(home, wanted, keys.network_key)
    try:
        table.follow()
    finally:
        table.close()
