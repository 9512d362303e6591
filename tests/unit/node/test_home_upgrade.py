"""A home of version 0, laid out as the first programs did, is brought to this version; a newer one is refused."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.state import State
from fungistor.errors import InvalidError
from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.files import load_root_key
from fungistor.keys.ring import unwrap
from fungistor.keys.table import KeyTable
from fungistor.names.table import NameTable
from fungistor.node import home_upgrade
from fungistor.node.home import HOME_VERSION, Home
from fungistor.node.home_upgrade import upgrade
from tests.unit.names.signing import Signer

SIGNER = Signer(3)
COMMAND = bytes.fromhex(
    "870050f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff01404001828e005820000102030405060708090a0b0c0d0e0f10111213141516171819"
    "1a1b1c1d1e1f006764656661756c740000851a000f42401a000dbba01a00124f80050248808182838485868758202021222324252627"
    "28292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f5820404142434445464748494a4b4c4d4e4f505152535455565758595a5b"
    "5c5d5e5f5818606162636465666768696a6b6c6d6e6f70717273747576771a6ab13b80f6840302070140"
)
"""A publish as version 0 wrote it: no revision at which it began, no signature."""

OBJECT = ObjectId(bytes(range(32)))
ROOT = """fungistor-root-key 0
AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
fingerprint a4e810ccfe221821
"""
TENANT_WRAPPED = "04f8a3c3c302d3b0b7e94b14dcf85ad1da69cd74056ed7907d3cb49fb27799a4104db058f2901adb"
OBJECT_WRAPPED = "ea6a7bc9db0d34f0a2a6adb93f77133b085a9e2040be6adfefc2778396c7e908e23c60df3cbaa216"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """What a home of version 0 held, in the words of that version."""
    home = Home(str(tmp_path / "home"))
    for folder in (home.root, home.keys, home.catalog):
        os.makedirs(folder, mode=0o700)
    _private(home.version_file, "0\n")
    _private(os.path.join(home.keys, "root.key"), ROOT)
    with closing(sqlite3.connect(home.key_table)) as keys:
        keys.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA application_id=0x46536B74; PRAGMA user_version=1;"
            "CREATE TABLE object_keys"
            " (object_id BLOB PRIMARY KEY, tenant INTEGER NOT NULL, wrapped BLOB NOT NULL) WITHOUT ROWID;"
            "CREATE TABLE tenant_keys (tenant INTEGER PRIMARY KEY, wrapped BLOB NOT NULL);"
            f"INSERT INTO tenant_keys VALUES (0, x'{TENANT_WRAPPED}');"
            f"INSERT INTO object_keys VALUES (x'{OBJECT.hex()}', 0, x'{OBJECT_WRAPPED}');"
        )
    record = SIGNER.encode("/ipfs/bafkqaaa", sequence=4, expires_s=4_000_000_000)
    with closing(sqlite3.connect(home.name_table)) as names:
        names.executescript(
            "PRAGMA journal_mode=WAL;"
            "CREATE TABLE records (name BLOB NOT NULL, sequence BLOB NOT NULL, expires_s REAL NOT NULL,"
            " imported_s REAL NOT NULL, record BLOB NOT NULL, PRIMARY KEY (name, sequence, expires_s)) WITHOUT ROWID;"
        )
        row = (SIGNER.name.multihash, (4).to_bytes(8, "big"), 4e9, 1.0, record)
        names.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?)", row)
        names.commit()
    with closing(SqliteLog(home.catalog_log)) as log:
        log.append(log.epoch(), [COMMAND])
    with closing(sqlite3.connect(home.catalog_state)) as state:
        state.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA application_id=0x46537431; PRAGMA user_version=1;"
            "CREATE TABLE progress (log BLOB NOT NULL, position BLOB NOT NULL, applied INTEGER NOT NULL,"
            " revision INTEGER NOT NULL, objects INTEGER NOT NULL, highest_member INTEGER NOT NULL, stopped TEXT);"
            "INSERT INTO progress VALUES (x'', x'', 0, 0, 0, 0, NULL);"
            "CREATE TABLE record (object_id BLOB PRIMARY KEY, body BLOB NOT NULL, revision INTEGER NOT NULL);"
        )
    return home


def _private(path: str, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(text)


def test_an_old_home_is_upgraded_once(home: Home) -> None:
    """Keys, imported records and published objects of version 0 are there at this version; twice changes nothing."""
    assert upgrade(home) == list(range(1, HOME_VERSION + 1))
    assert upgrade(home) == []
    assert Path(home.version_file).read_text() == f"{HOME_VERSION}\n"
    assert home.prepare() is False

    root = load_root_key(os.path.join(home.keys, "root.key"), {})
    with closing(KeyTable(home.key_table)) as table:
        wrapped, row = table.get_tenant(TenantNumber(0)), table.get(OBJECT)
    assert wrapped is not None
    assert row is not None
    assert len(unwrap(unwrap(root, wrapped), row)) == 32
    records = NameTable(home.name_table)
    assert [(record.name, record.sequence) for record in records.all()] == [(SIGNER.name, 4)]
    assert records.aliases() == {}
    with closing(Catalog(SqliteLog(home.catalog_log), State(home.catalog_state))) as catalog:
        assert catalog.catch_up()
        assert [record.object_id for record in catalog.records()] == [OBJECT]


def test_a_step_that_fails_leaves_the_old_version(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a step is through the home states the version before it, and the next start does the step again."""

    def fail(home: Home) -> None:
        upgraded[0](home)
        raise OSError("cut short")

    upgraded = home_upgrade.STEPS
    monkeypatch.setattr(home_upgrade, "STEPS", (fail,))
    with pytest.raises(OSError, match="cut short"):
        upgrade(home)
    assert home.version() == 0
    monkeypatch.undo()
    assert upgrade(home) == [1]


def test_a_newer_home_is_not_touched(home: Home) -> None:
    """A home of a later program is refused before any step."""
    Path(home.version_file).write_text(f"{HOME_VERSION + 1}\n")
    with pytest.raises(InvalidError, match=f"knows versions up to {HOME_VERSION}"):
        upgrade(home)
    assert Path(home.version_file).read_text() == f"{HOME_VERSION + 1}\n"
