"""The key table: durable, shared by processes, and without a trace of what was deleted."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fungistor.errors import CorruptError, DeniedError, FailedError, InvalidError, UnavailableError
from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.issue import issue
from fungistor.keys.ring import network_key_of, unwrap, wrap
from fungistor.keys.table import KeyTable
from tests.vectors.make_keys import ROOT_KEY, TENANT_KEY

OWN = TenantNumber(0)


def object_of(number: int) -> ObjectId:
    """An object's id."""
    return ObjectId(number.to_bytes(32, "big"))


def wrapped_of(number: int) -> bytes:
    """A wrapped key, different for each number."""
    return wrap(TENANT_KEY, number.to_bytes(32, "big"))


@pytest.fixture
def table(tmp_path: Path) -> Iterator[KeyTable]:
    """An empty table, closed at the end."""
    made = KeyTable(str(tmp_path / "keys.sqlite"), busy_timeout_s=0.2)
    yield made
    made.close()


def test_the_first_key_of_an_object_is_kept(table: KeyTable) -> None:
    """put gives the kept key, so two publishers of one object end with the same."""
    assert table.get(object_of(1)) is None
    assert table.put(object_of(1), OWN, wrapped_of(1)) == wrapped_of(1)
    assert table.put(object_of(1), OWN, wrapped_of(2)) == wrapped_of(1)
    assert table.get(object_of(1)) == wrapped_of(1)
    assert table.objects() == [object_of(1)]


def test_keys_outlive_the_process(table: KeyTable, tmp_path: Path) -> None:
    """A closed table gives its keys to the next one, and its file is its owner's alone."""
    table.put(object_of(1), OWN, wrapped_of(1))
    table.put_tenant(OWN, wrap(ROOT_KEY, TENANT_KEY))
    table.close()
    again = KeyTable(str(tmp_path / "keys.sqlite"))
    assert again.get(object_of(1)) == wrapped_of(1)
    assert again.tenants() == [OWN]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
    again.close()


def test_a_deleted_key_leaves_no_bytes(table: KeyTable, tmp_path: Path) -> None:
    """After delete not one file of the table holds the wrapped key; the other keys stay."""
    for number in range(300):
        table.put(object_of(number), OWN, wrapped_of(number))
    assert any(wrapped_of(7) in path.read_bytes() for path in tmp_path.iterdir())
    assert table.delete([object_of(7), object_of(8), object_of(9999)]) == 2
    assert table.delete([]) == 0
    for path in tmp_path.iterdir():
        assert wrapped_of(7) not in path.read_bytes()
    assert table.get(object_of(7)) is None
    assert table.get(object_of(9)) == wrapped_of(9)


def test_sweeping_waits_for_readers_of_the_old_state(table: KeyTable, tmp_path: Path) -> None:
    """While another process reads an older state the sweep says False, and True once it has gone."""
    table.put(object_of(1), OWN, wrapped_of(1))
    reader = sqlite3.connect(tmp_path / "keys.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM object_keys").fetchall()
    assert table.delete([object_of(1)]) == 1
    assert not table.sweep()
    reader.execute("COMMIT")
    assert table.sweep()
    reader.close()
    assert not any(wrapped_of(1) in path.read_bytes() for path in tmp_path.iterdir())


def test_many_first_users_make_one_table(tmp_path: Path) -> None:
    """Threads and processes that open a table that is not there yet all end up in the same one."""
    path = str(tmp_path / "keys.sqlite")
    program = (
        "import sys; from fungistor.keys.table import KeyTable; t = KeyTable(sys.argv[1]);"
        "print(t.put(bytes(32), 0, bytes([int(sys.argv[2])]) * 40).hex()); t.close()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, path, str(number)], stdout=subprocess.PIPE)
        for number in range(3)
    ]
    kept: set[str] = set()

    def use(number: int) -> None:
        own = KeyTable(path)
        kept.add(own.put(ObjectId(bytes(32)), OWN, bytes([number]) * 40).hex())
        own.close()

    threads = [threading.Thread(target=use, args=(number,)) for number in range(10, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        kept.add(out.decode().strip())
    assert len(kept) == 1


def test_a_table_crosses_a_fork(table: KeyTable) -> None:
    """Parent and child both go on with a table that was open before the fork."""
    table.put(object_of(1), OWN, wrapped_of(1))
    child = os.fork()
    if child == 0:
        try:
            table.put(object_of(2), OWN, wrapped_of(2))
            table.close()
            os._exit(0)
        finally:
            os._exit(1)
    table.put(object_of(3), OWN, wrapped_of(3))
    assert os.waitpid(child, 0)[1] == 0
    assert table.objects() == [object_of(1), object_of(2), object_of(3)]


def test_a_table_that_is_held_is_unavailable(table: KeyTable, tmp_path: Path) -> None:
    """A writer that waits longer than the bound gets an UnavailableError; readers do not wait."""
    table.put(object_of(1), OWN, wrapped_of(1))
    holder = sqlite3.connect(tmp_path / "keys.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match=r"in use for longer than 0\.2 s"):
        table.put(object_of(2), OWN, wrapped_of(2))
    assert table.get(object_of(1)) == wrapped_of(1)
    holder.close()
    table.put(object_of(2), OWN, wrapped_of(2))


def test_what_is_no_key_table_is_refused(tmp_path: Path) -> None:
    """Garbage, another database, a newer version and a missing folder each give their own error, and no change."""
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"not a database at all, and long enough to have a header" * 40)
    with pytest.raises(CorruptError, match="is torn"):
        KeyTable(str(garbage)).get(object_of(1))
    foreign = sqlite3.connect(tmp_path / "foreign")
    foreign.execute("CREATE TABLE other (x)")
    foreign.close()
    before = (tmp_path / "foreign").read_bytes()
    with pytest.raises(InvalidError, match="is not a key table of version 0"):
        KeyTable(str(tmp_path / "foreign")).get(object_of(1))
    assert (tmp_path / "foreign").read_bytes() == before
    newer = KeyTable(str(tmp_path / "newer"))
    newer.tenants()
    newer.close()
    raw = sqlite3.connect(tmp_path / "newer")
    raw.execute("PRAGMA user_version=2")
    raw.close()
    with pytest.raises(InvalidError, match="is not a key table of version 0"):
        newer.tenants()
    with pytest.raises(FailedError, match="cannot be made"):
        KeyTable(str(tmp_path / "absent" / "keys.sqlite")).tenants()


def test_a_bare_key_never_gets_in(table: KeyTable) -> None:
    """Only 40 bytes are kept: a key that someone forgot to wrap has 32."""
    with pytest.raises(ValueError, match="40 bytes, not 32"):
        table.put(object_of(1), OWN, TENANT_KEY)
    with pytest.raises(ValueError, match="40 bytes, not 32"):
        table.put_tenant(OWN, TENANT_KEY)
    assert table.objects() == []


def test_nodes_of_one_network_share_tenants_and_not_signatures(table: KeyTable) -> None:
    """Two nodes issued from one root key have the same network and tenant keys, and signing keys of their own."""
    first, second = issue(ROOT_KEY, table), issue(ROOT_KEY, table)
    assert first.network_key == second.network_key == network_key_of(ROOT_KEY)
    assert first.tenant_keys == second.tenant_keys
    assert first.issuer != second.issuer
    wrapped = table.get_tenant(OWN)
    assert wrapped is not None
    assert unwrap(ROOT_KEY, wrapped) == first.tenant_keys[OWN]
    first.check_root(ROOT_KEY)


def test_another_networks_root_key_issues_nothing(table: KeyTable) -> None:
    """A root key that does not open the tenants is a DeniedError that says so, and the table stays as it was."""
    issue(ROOT_KEY, table)
    kept = table.get_tenant(OWN)
    with pytest.raises(DeniedError, match="this root key does not open the key of tenant 0"):
        issue(TENANT_KEY, table)
    assert table.get_tenant(OWN) == kept
