"""Where a home's catalog has its log: in a file of the home, or on etcd."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.log import Log
from fungistor.errors import InvalidError
from fungistor.keys.mirror import MirroredKeys
from fungistor.keys.ring import network_mark
from fungistor.keys.store import KeyStore
from fungistor.keys.table import KeyTable
from fungistor.node.config import Config, save_config
from fungistor.node.files import read_bounded
from fungistor.node.home import Home

if TYPE_CHECKING:
    from fungistor.catalog.engines.etcd import EtcdLog
    from fungistor.catalog.engines.etcd_client import EtcdAddress, EtcdLogin

PASSWORD_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class CatalogOptions:
    """What a command was told of the catalog; None where it was told nothing."""

    url: str | None = None
    user: str | None = None
    password_file: str | None = None
    ca: str | None = None


NOTHING_SAID = CatalogOptions()


def catalog_url(home: Home, config: Config) -> str:
    """The catalog's place as users write it. It holds no secret."""
    return config.catalog or f"sqlite:{home.catalog_log}"


def open_log(home: Home, config: Config, *, sync: bool = True) -> Log:
    """Open the log where the home's configuration says it is; nothing is asked of etcd yet.

    Raises:
        InvalidError: the configuration, a file that it names among it, cannot be used.
    """
    if config.catalog is None:
        return SqliteLog(home.catalog_log, sync=sync)
    return etcd_log(config)


def etcd_log(config: Config) -> EtcdLog:
    """The log on the etcd that a configuration names. Raises as `open_log`."""
    # Imported here: most networks have their log in a file, and no command should wait for an HTTP client's imports.
    from fungistor.catalog.engines.etcd import EtcdLog

    return EtcdLog(*_etcd(config))


def _etcd(config: Config) -> tuple[EtcdAddress, EtcdLogin]:
    from fungistor.catalog.engines.etcd_client import EtcdLogin, parse_etcd_url

    assert config.catalog is not None
    if config.catalog_user and not config.catalog_password_file:
        raise InvalidError("a catalog user needs a password", hint="give --catalog-password-file")
    login = EtcdLogin(config.catalog_user or "", _password(config.catalog_password_file), config.catalog_ca or "")
    return parse_etcd_url(config.catalog), login


def open_keys(home: Home, config: Config, network_key: bytes, *, sync: bool = True) -> KeyStore:
    """Open the key table beside the log: this home's own, or the one that all homes share. Raises as `open_log`."""
    table = KeyTable(home.key_table, sync=sync)
    if config.catalog is None:
        return table
    from fungistor.catalog.engines.etcd_keys import EtcdKeys

    return MirroredKeys(table, EtcdKeys(*_etcd(config)), network_mark(network_key))


def placed(home: Home, config: Config, asked: CatalogOptions) -> Config:
    """The configuration of `up` with what it was asked; kept in the home where that is new.

    Raises:
        InvalidError: the network has its catalog somewhere else already.
    """
    if asked.url is None and not (asked.user or asked.password_file or asked.ca):
        return config
    url = None if asked.url is None or asked.url in ("sqlite:", f"sqlite:{home.catalog_log}") else asked.url
    if asked.url is None:
        url = config.catalog
    if url is not None and url.startswith("sqlite:"):
        raise InvalidError(
            f"{url}: a catalog in a file lies in the home, at {home.catalog_log}", hint="leave --catalog out"
        )
    if url != config.catalog and home.has_catalog:
        raise InvalidError(
            f"the catalog of this network is {catalog_url(home, config)}",
            hint="`fungistor catalog migrate URL` moves it, while the network stands still",
        )
    config = with_options(config, replace(asked, url=url))
    if url is not None:
        etcd_log(config).close()
    save_config(home, config)
    return config


def with_options(config: Config, asked: CatalogOptions) -> Config:
    """A configuration whose catalog is where `asked` says."""
    return replace(
        config,
        catalog=asked.url,
        catalog_user=asked.user or config.catalog_user,
        catalog_password_file=_absolute(asked.password_file) or config.catalog_password_file,
        catalog_ca=_absolute(asked.ca) or config.catalog_ca,
    )


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(path)


def _password(path: str | None) -> str:
    if path is None:
        return ""
    try:
        content = read_bounded(path, PASSWORD_BYTES_MAX)
    except OSError as error:
        raise InvalidError(f"{path}: the catalog's password cannot be read: {error.strerror or error}") from error
    if content is None:
        raise InvalidError(f"{path}: a password has at most {PASSWORD_BYTES_MAX} bytes")
    return content.decode(errors="surrogateescape").rstrip("\r\n")
