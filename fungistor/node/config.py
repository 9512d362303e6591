"""`config.toml` of a home: the few choices that outlive one run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace

import tomli_w

from fungistor.errors import InvalidError
from fungistor.names import multiaddress
from fungistor.node.files import read_bounded, write_atomic
from fungistor.node.home import Home

CONFIG_BYTES_MAX = 64 << 10
GATEWAY_WORKERS_MAX = 64
DNS_ZONES_MAX = 256
ANNOUNCE_MAX = 16


@dataclass(frozen=True, slots=True)
class Config:
    """What `up` starts with where its options say nothing."""

    gateway: str = "127.0.0.1:8480"
    gateway_workers: int = 2
    gateway_cache_bytes: int = 4 << 30
    """What was read through the gateway and is kept on disk, sealed, if a tenth of the disk is as much; 0: nothing."""
    gateway_memory_bytes: int = 16 << 20
    """Opened blocks kept in memory, each gateway worker."""
    lat: float | None = None
    lon: float | None = None
    """Where this node is, in degrees: with it the nearest members are guessed before they are measured."""
    geoip_database: str | None = None
    """A city database in MMDB format, for members whose pool file gives no place."""
    announce: tuple[str, ...] = ()
    """URLs at which other IPFS nodes reach the gateway. None: its own address, unless it listens on every one."""
    dns: Mapping[str, str] = field(default_factory=lambda: {".": "system"})
    """Who is asked for DNSLinks, by zone: `system`, `off`, or the URL of a resolver over HTTPS."""

    pool: str | None = None
    """The pool file of members that other nodes run. None: the home's own members."""
    catalog: str | None = None
    """Where the catalog's log is: `etcd://HOST:PORT,HOST:PORT[/PREFIX]`, `etcds://` with TLS. None: in the home."""
    catalog_user: str | None = None
    catalog_password_file: str | None = None
    catalog_ca: str | None = None
    """Certificates to trust in place of the system's."""

    @property
    def here(self) -> tuple[float, float] | None:
        """Latitude and longitude, if both are given."""
        return None if self.lat is None or self.lon is None else (self.lat, self.lon)


def load_config(home: Home) -> Config:
    """Read a home's choices; the defaults where there is no file.

    Raises: InvalidError naming the line or the key.
    """
    path = home.config_file
    try:
        content = read_bounded(path, CONFIG_BYTES_MAX)
    except FileNotFoundError:
        return Config()
    if content is None:
        raise InvalidError(f"{path} is longer than {CONFIG_BYTES_MAX} bytes", hint="it should be a few lines")
    try:
        table = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidError(f"{path} is no TOML: {error}", hint="mend the line, or delete the file") from error
    known = {known.name for known in fields(Config)}
    for key in table:
        if key not in known:
            raise InvalidError(f"{path}: unknown key {key!r}", hint=f"known are {', '.join(sorted(known))}")
    config = Config(**table)
    _check(path, config)
    return replace(config, announce=_urls(path, config.announce))


def _check(path: str, config: Config) -> None:
    if not isinstance(config.gateway, str):
        raise InvalidError(f"{path}: gateway is not text", hint='write it as "HOST:PORT"')
    if type(config.gateway_workers) is not int or not 1 <= config.gateway_workers <= GATEWAY_WORKERS_MAX:
        raise InvalidError(f"{path}: gateway_workers is not a number from 1 to {GATEWAY_WORKERS_MAX}")
    for key in ("gateway_cache_bytes", "gateway_memory_bytes"):
        value = getattr(config, key)
        if type(value) is not int or value < 0:
            raise InvalidError(f"{path}: {key} is not a number of bytes")
    _check_degrees(path, "lat", config.lat, 90)
    _check_degrees(path, "lon", config.lon, 180)
    if (config.lat is None) != (config.lon is None):
        raise InvalidError(f"{path}: lat and lon stand only together")
    for key in ("geoip_database", "pool", "catalog", "catalog_user", "catalog_password_file", "catalog_ca"):
        if not isinstance(getattr(config, key), str | None):
            raise InvalidError(f"{path}: {key} is not text")
    _check_dns(path, config.dns)


def _urls(path: str, urls: object) -> tuple[str, ...]:
    if not isinstance(urls, list | tuple) or len(urls) > ANNOUNCE_MAX or not all(isinstance(url, str) for url in urls):
        raise InvalidError(f"{path}: announce is no list of at most {ANNOUNCE_MAX} URLs")
    for url in urls:
        multiaddress.of_url(url)
    return tuple(urls)


def _check_dns(path: str, zones: object) -> None:
    if not isinstance(zones, dict) or len(zones) > DNS_ZONES_MAX:
        raise InvalidError(
            f"{path}: dns is no table of up to {DNS_ZONES_MAX} zones", hint='write dns = { "." = "off" }'
        )
    for zone, resolver in zones.items():
        if not isinstance(resolver, str) or not (
            resolver in ("system", "off") or resolver.startswith(("https://", "http://"))
        ):
            raise InvalidError(f"{path}: dns for {zone!r} is neither system, off, nor the URL of a resolver")


def _check_degrees(path: str, key: str, value: object, most: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not -most <= value <= most:
        raise InvalidError(f"{path}: {key} is not a number of degrees from -{most} to {most}")


def save_config(home: Home, config: Config) -> None:
    """Write a home's choices.

    Raises: OSError.
    """
    table = {key: value for key, value in asdict(config).items() if value is not None}
    write_atomic(home.config_file, tomli_w.dumps(table).encode())
