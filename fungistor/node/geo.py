"""Where members are, for those whose pool file does not say: from a GeoIP database that the operator supplies.

A first guess only: once a member has answered, its measured latency counts. Needs the extra `fungistor[geo]`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import replace

from fungistor.errors import FailedError, InvalidError
from fungistor.node.pool_file import PoolMember

Locate = Callable[[str], tuple[float, float] | None]
"""Latitude and longitude of an IP address, None if unknown."""


def with_places(members: Sequence[PoolMember], database: str | None) -> tuple[PoolMember, ...]:
    """Members with the places that the database knows, where their own say nothing. No database: as they are.

    Raises:
        FailedError: the database cannot be read. InvalidError: it is none, or the extra is not installed.
    """
    if database is None or all(member.lat is not None for member in members):
        return tuple(members)
    try:
        import geoip2.database  # of an extra: an installation without it starts all the same
        import geoip2.errors
        import maxminddb
    except ImportError as error:
        raise InvalidError(
            "config.toml names a geoip_database, and the package that reads it is not installed",
            hint="pip install 'fungistor[geo]', or take the line out",
        ) from error
    try:
        reader = geoip2.database.Reader(database)
    except OSError as error:
        raise FailedError(f"the GeoIP database {database} cannot be read: {error.strerror or error}") from error
    except maxminddb.InvalidDatabaseError as error:
        raise InvalidError(f"{database} is no GeoIP database", hint="give a city database in MMDB format") from error

    def locate(address: str) -> tuple[float, float] | None:
        try:
            place = reader.city(address).location
        except geoip2.errors.AddressNotFoundError:
            return None
        except TypeError as error:  # what the library raises for a database without cities
            raise InvalidError(
                f"{database} does not know cities", hint="give a city database in MMDB format"
            ) from error
        return None if place.latitude is None or place.longitude is None else (place.latitude, place.longitude)

    with reader:
        return tuple(_placed(member, locate) for member in members)


def _placed(member: PoolMember, locate: Locate) -> PoolMember:
    host = member.address.rpartition(":")[0].strip("[]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return member  # a name or a socket's path: nothing is looked up in DNS for a guess
    if member.lat is not None or (found := locate(host)) is None:
        return member
    return replace(member, lat=found[0], lon=found[1])
