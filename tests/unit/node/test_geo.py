"""Places of members from a GeoIP database, made here."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from fungistor.errors import FailedError, InvalidError
from fungistor.ids import MemberId
from fungistor.node.config import Config, load_config, save_config
from fungistor.node.geo import with_places
from fungistor.node.home import Home
from fungistor.node.pool_file import PoolMember

BRUSSELS = (50.85, 4.35)


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A city database of one network."""
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="Test-City", float_type="f64")
    location = {"location": {"latitude": BRUSSELS[0], "longitude": BRUSSELS[1]}}
    writer.insert_network(IPSet(["192.0.2.0/24"]), location)
    path = tmp_path / "city.mmdb"
    writer.to_db_file(str(path))
    return str(path)


def member(name: str, address: str, place: tuple[float, float] | None = None) -> PoolMember:
    lat, lon = place or (None, None)
    return PoolMember(MemberId(name), address, "ns", lat=lat, lon=lon)


def test_members_without_a_place_get_the_one_of_their_address(database: str) -> None:
    """The pool file's own word counts first; unknown addresses, names and sockets stay without a place."""
    members = [
        member("known", "192.0.2.7:9900"),
        member("said", "192.0.2.8:9900", (1.0, 2.0)),
        member("unknown", "198.51.100.1:9900"),
        member("named", "storage.example.org:9900"),
        member("six", "[2001:db8::1]:9900"),
    ]
    placed = {str(found.id): (found.lat, found.lon) for found in with_places(members, database)}
    nowhere = (None, None)
    assert placed == {"known": BRUSSELS, "said": (1.0, 2.0), "unknown": nowhere, "named": nowhere, "six": nowhere}


def test_without_a_database_members_stay_as_they_are() -> None:
    """Nothing is read where none is named."""
    members = (member("a", "192.0.2.7:9900"),)
    assert with_places(members, None) == members


def test_a_database_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A missing file and a file of something else are told apart, each by its path."""
    members = [member("a", "192.0.2.7:9900")]
    with pytest.raises(FailedError, match=r"gone\.mmdb"):
        with_places(members, str(tmp_path / "gone.mmdb"))
    other = tmp_path / "other.mmdb"
    other.write_bytes(b"not a database" * 100)
    with pytest.raises(InvalidError, match=r"other\.mmdb"):
        with_places(members, str(other))


def test_a_place_survives_the_configuration_file(tmp_path: Path) -> None:
    """What was written is read, and half a place or one off the globe is refused."""
    home = Home(str(tmp_path))
    save_config(home, Config(lat=50.85, lon=4.35, geoip_database="/srv/city.mmdb"))
    assert load_config(home).here == BRUSSELS
    for text in ("lat = 1.0", "lat = 91\nlon = 0", 'lat = "north"\nlon = 0', "geoip_database = 3"):
        (tmp_path / "config.toml").write_text(text)
        with pytest.raises(InvalidError):
            load_config(home)
