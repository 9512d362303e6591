"""Key tables: one contract on a home's own SQLite file and on mirrors of one table on a real etcd."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from fungistor.catalog.engines.etcd_keys import EtcdKeys
from fungistor.errors import DeniedError, UnavailableError
from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.mirror import MirroredKeys
from fungistor.keys.ring import WRAPPED_KEY_BYTES
from fungistor.keys.store import KeyStore
from fungistor.keys.table import KeyTable
from tests.contracts.etcd_world import EtcdCluster, etcd_cluster

TENANT = TenantNumber(0)
NETWORK = b"n" * 16
_prefixes = (f"keys-{number}" for number in itertools.count())


def object_of(number: int) -> ObjectId:
    return ObjectId(number.to_bytes(32, "big"))


def wrapped(number: int) -> bytes:
    return number.to_bytes(WRAPPED_KEY_BYTES, "big")


class World(Protocol):
    def open(self, home: str) -> KeyStore:
        """The table as a home sees it; every home sees the same keys."""

    def close(self) -> None: ...


class SqliteWorld:
    """One home: each handle is another process of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[KeyTable] = []

    def open(self, home: str) -> KeyStore:
        self.opened.append(KeyTable(str(self.folder / "keys.sqlite")))
        return self.opened[-1]

    def close(self) -> None:
        for table in self.opened:
            table.close()


class EtcdWorld:
    def __init__(self, folder: Path, etcd: EtcdCluster) -> None:
        self.folder, self.etcd, self.prefix = folder, etcd, next(_prefixes)
        self.opened: list[MirroredKeys] = []

    def open(self, home: str, network: bytes = NETWORK) -> MirroredKeys:
        table = KeyTable(str(self.folder / f"{home}.sqlite"))
        self.opened.append(MirroredKeys(table, EtcdKeys(self.etcd.address(self.prefix)), network))
        return self.opened[-1]

    def close(self) -> None:
        for keys in self.opened:
            keys.close()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with etcd_cluster(tmp_path_factory.mktemp("etcd"), 1) as cluster:
        cluster.wait_ready()
        yield cluster


@pytest.fixture
def shared(tmp_path: Path, etcd: EtcdCluster) -> Iterator[EtcdWorld]:
    made = EtcdWorld(tmp_path, etcd)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "etcd"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    makers: dict[str, Callable[[], World]] = {
        "sqlite": lambda: SqliteWorld(tmp_path),
        "etcd": lambda: EtcdWorld(tmp_path, request.getfixturevalue("etcd")),
    }
    made = makers[request.param]()
    yield made
    made.close()


def test_the_first_key_put_is_the_one_kept(world: World) -> None:
    """Two homes that put a key for one object end with the same, and both read it."""
    one, other = world.open("one"), world.open("other")
    assert one.put(object_of(1), TENANT, wrapped(1)) == wrapped(1)
    assert other.put(object_of(1), TENANT, wrapped(2)) == wrapped(1)
    assert one.get(object_of(1)) == other.get(object_of(1)) == wrapped(1)
    assert one.get(object_of(2)) is None


def test_many_keys_are_put_at_once(world: World) -> None:
    """More keys than a transaction of any engine takes are there for every home; one that was there stays as it was."""
    one, other = world.open("one"), world.open("other")
    one.put(object_of(7), TENANT, wrapped(999))
    other.put_all([(object_of(number), TENANT, wrapped(number)) for number in range(250)])
    one.follow()
    kept = {number: wrapped(999 if number == 7 else number) for number in range(250)}
    assert {number: one.get(object_of(number)) for number in range(250)} == kept
    assert {number: other.get(object_of(number)) for number in range(250)} == kept


def test_what_is_dropped_is_dropped_everywhere(world: World) -> None:
    """A dropped key is gone from a home that follows, however many were put and dropped; another may then be put."""
    one, other = world.open("one"), world.open("other")
    for number in range(5):
        one.put(object_of(number), TENANT, wrapped(number))
    other.follow()
    assert one.delete([object_of(1), object_of(3), object_of(9)]) == 2
    assert one.get(object_of(1)) is None
    other.follow()
    assert other.objects() == one.objects() == [object_of(0), object_of(2), object_of(4)]
    assert other.put(object_of(1), TENANT, wrapped(7)) == wrapped(7)
    one.follow()
    assert one.get(object_of(1)) == wrapped(7)


def test_tenants_keys_are_shared(world: World) -> None:
    """A tenant's wrapped key is one for all homes."""
    one, other = world.open("one"), world.open("other")
    assert one.put_tenant(TENANT, wrapped(5)) == wrapped(5)
    assert other.put_tenant(TENANT, wrapped(6)) == wrapped(5)
    assert other.get_tenant(TENANT) == wrapped(5)
    assert other.tenants() == [TENANT]


def test_keys_are_replaced_where_they_are(world: World) -> None:
    """A key wrapped anew takes the place of the old one on every home; what was dropped does not come back."""
    here, there = world.open("a"), world.open("b")
    for number in range(120):
        here.put(ObjectId(number.to_bytes(32, "big")), TenantNumber(3), wrapped(number))
    there.follow()
    rows, after = [], ObjectId(b"")
    while page := here.rows(after, 99):
        rows += page
        after = page[-1][0]
    assert [(int.from_bytes(key, "big"), tenant, kept) for key, tenant, kept in rows] == [
        (number, 3, wrapped(number)) for number in range(120)
    ]
    there.delete([rows[7][0]])
    here.replace([(key, tenant, wrapped(1000 + number)) for number, (key, tenant, _) in enumerate(rows)])
    here.put_tenant(TenantNumber(3), wrapped(1))
    here.replace_tenant(TenantNumber(3), wrapped(2))
    there.follow()
    for number, (key, _, _) in enumerate(rows):
        assert there.get(key) == here.get(key) == (None if number == 7 else wrapped(1000 + number))
    assert there.get_tenant(TenantNumber(3)) == wrapped(2)


def test_a_home_that_was_away_takes_up_what_history_no_longer_tells(shared: EtcdWorld) -> None:
    """After a sweep, which compacts etcd's history, a home that was away still learns what was put, dropped and put
    again, and nothing of etcd's file gives the dropped key."""
    one, other = shared.open("one"), shared.open("other")
    for number in range(6):
        one.put(object_of(number), TENANT, wrapped(number))
    other.follow()
    secret = b"a key that is to be forgotten".ljust(WRAPPED_KEY_BYTES, b"!")
    one.put(object_of(6), TENANT, secret)
    one.delete([object_of(0), object_of(1), object_of(6)])
    one.put(object_of(1), TENANT, wrapped(11))
    one.put(object_of(8), TENANT, wrapped(8))
    assert one.sweep()
    assert secret not in (shared.etcd.folder / "n0" / "member" / "snap" / "db").read_bytes()
    other.follow()
    assert {key: other.get(key) for key in other.objects()} == {
        object_of(number): wrapped(kept) for number, kept in ((1, 11), (2, 2), (3, 3), (4, 4), (5, 5), (8, 8))
    }
    late = shared.open("late")
    late.follow()
    assert late.objects() == other.objects()


def test_keys_that_were_put_together_are_dropped_and_replaced_one_by_one(world: World) -> None:
    """Of many put at once some are dropped by one home and others replaced by another; a third learns both, and one
    that was dropped may be put again."""
    one, other = world.open("one"), world.open("other")
    one.put_all([(object_of(number), TENANT, wrapped(number)) for number in range(1, 1101)])
    one.put(object_of(5000), TENANT, wrapped(5000))
    assert other.put(object_of(3), TENANT, wrapped(9)) == wrapped(3)
    assert other.delete([object_of(number) for number in (2, 4, 1099, 5000, 7000)]) == 4
    one.replace([(object_of(number), TENANT, wrapped(number + 10_000)) for number in (2, 3, 1100)])
    assert one.put(object_of(4), TENANT, wrapped(44)) == wrapped(44)
    late = world.open("late")
    for keys in (one, other, late):
        keys.follow()
        assert len(keys.objects()) == 1098
        expected = {1: wrapped(1), 2: None, 3: wrapped(10_003), 4: wrapped(44), 1099: None, 1100: wrapped(11_100)}
        assert {number: keys.get(object_of(number)) for number in expected} == expected
    assert one.sweep()
    later = world.open("later")
    later.follow()
    assert later.rows(ObjectId(b""), 2000) == one.rows(ObjectId(b""), 2000)


@pytest.mark.parametrize("seed", range(3))
def test_homes_agree_whatever_they_do(world: World, seed: int) -> None:
    """Puts of one and of many, drops, replacements and sweeps of three homes by chance: all hold the same."""
    rng, fresh = random.Random(seed), itertools.count()
    homes = [world.open(name) for name in ("a", "b", "c")]
    expected: dict[int, int] = {}
    for step in range(40):
        keys = rng.choice(homes)
        known = sorted(expected)
        match rng.randrange(6):
            case 0 | 1:
                many = [next(fresh) for _ in range(rng.choice((3, 20, 130)))]
                keys.put_all([(object_of(number), TENANT, wrapped(step)) for number in many])
                expected |= dict.fromkeys(many, step)
            case 2:
                number = rng.choice([next(fresh), *rng.sample(known, min(2, len(known)))])
                assert keys.put(object_of(number), TENANT, wrapped(step)) == wrapped(expected.setdefault(number, step))
            case 3:
                gone = rng.sample(known, min(len(known), 7))
                assert keys.delete([object_of(number) for number in gone]) == len(gone)
                expected = {number: kept for number, kept in expected.items() if number not in gone}
            case 4:
                anew = rng.sample(known, min(len(known), 7))
                keys.replace([(object_of(number), TENANT, wrapped(step)) for number in anew])
                expected |= dict.fromkeys(anew, step)
            case _:
                keys.sweep() if rng.random() < 0.3 else keys.follow()
    wanted = [(object_of(number), TENANT, wrapped(kept)) for number, kept in sorted(expected.items())]
    for keys in (*homes, world.open("late")):
        keys.follow()
        assert keys.rows(ObjectId(b""), 10_000) == wanted


def test_all_of_a_page_can_be_dropped(world: World) -> None:
    """A page whose last key is dropped leaves nothing that a new home would take up."""
    one = world.open("one")
    ids = [object_of(number) for number in range(40)]
    one.put_all([(object_id, TENANT, wrapped(1)) for object_id in ids])
    assert one.delete(ids[:30]) == 30
    assert one.delete(ids) == 10
    late = world.open("late")
    late.follow()
    assert late.objects() == one.objects() == []


def test_a_key_dropped_from_a_page_is_nowhere(shared: EtcdWorld) -> None:
    """After a sweep neither etcd's file nor a mirror gives a key that was put with others; those are there."""
    one = shared.open("one")
    secret = b"one of many, to be forgotten".ljust(WRAPPED_KEY_BYTES, b"!")
    one.put_all([(object_of(number), TENANT, secret if number == 20 else wrapped(number)) for number in range(40)])
    files = [shared.etcd.folder / "n0" / "member" / "snap" / "db", *shared.folder.glob("one.sqlite*")]
    assert any(secret in file.read_bytes() for file in files)
    one.delete([object_of(20)])
    assert one.sweep()
    assert not any(secret in file.read_bytes() for file in files if file.exists())
    assert len(one.objects()) == 39


def test_homes_that_put_the_same_key_beside_pages_agree(shared: EtcdWorld) -> None:
    """A key that one home brought in a page stays the one that is kept for a home that had not heard of it."""
    one, other = shared.open("one"), shared.open("other")
    other.follow()
    one.put_all([(object_of(number), TENANT, wrapped(number)) for number in range(100)])
    assert other.put(object_of(50), TENANT, wrapped(1)) == wrapped(50)
    one.follow()
    assert one.get(object_of(50)) == other.get(object_of(50)) == wrapped(50)


def test_a_home_brings_what_it_has_when_it_first_joins_and_never_again(shared: EtcdWorld, tmp_path: Path) -> None:
    """Keys of a home that had a table of its own reach the others; an old mirror brings no dropped key back."""
    own = KeyTable(str(tmp_path / "one.sqlite"))
    for number in range(120):
        own.put(object_of(number), TENANT, wrapped(number))
    own.close()
    one, other = shared.open("one"), shared.open("other")
    one.follow()
    other.follow()
    assert other.objects() == [object_of(number) for number in range(120)]
    other.delete([object_of(7)])
    assert one.get(object_of(7)) == wrapped(7)
    one.follow()
    assert one.get(object_of(7)) is None
    assert object_of(7) not in other.objects()


def test_without_etcd_the_mirror_reads(shared: EtcdWorld, tmp_path: Path) -> None:
    """What a home has followed is read while etcd is dead; a put says that it cannot be had, and is repeated."""
    with etcd_cluster(tmp_path / "own", 1) as etcd:
        etcd.wait_ready()
        world = EtcdWorld(tmp_path, etcd)
        keys = world.open("one")
        keys.put(object_of(1), TENANT, wrapped(1))
        etcd.stop(0)
        assert keys.get(object_of(1)) == wrapped(1)
        with pytest.raises(UnavailableError, match="etcd"):
            keys.put(object_of(2), TENANT, wrapped(2))
        with pytest.raises(UnavailableError, match="etcd"):
            keys.get(object_of(3))
        etcd.start(0)
        etcd.wait_ready()
        assert keys.put(object_of(2), TENANT, wrapped(2)) == wrapped(2)
        world.close()


def test_another_network_s_table_is_refused(shared: EtcdWorld) -> None:
    """A home with other keys is told that the table is not its network's, and changes nothing there."""
    shared.open("one").put(object_of(1), TENANT, wrapped(1))
    stranger = shared.open("stranger", b"s" * 16)
    with pytest.raises(DeniedError, match="another network"):
        stranger.put(object_of(2), TENANT, wrapped(2))
    assert shared.open("two").get(object_of(2)) is None
