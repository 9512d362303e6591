"""Sequential mode: ids, updates, and what any end leaves of them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from fungistor.zdb.daemon.checkpoint import load_checkpoint
from fungistor.zdb.daemon.format import (
    DATA_HEADER,
    INDEX_HEADER,
    MODE_SEQUENTIAL,
    SLOT_BYTES,
    IndexRecord,
    index_header,
    pack_index_record,
)
from fungistor.zdb.daemon.recovery import recover
from fungistor.zdb.daemon.sequential import id_bytes
from tests.unit.zdb_daemon.harness import Client, Daemon, daemon
from tests.unit.zdb_daemon.test_daemon_commands import info_of


def _fill(client: Client) -> dict[bytes, bytes]:
    """Insert, update and delete; return what must be there."""
    values: dict[bytes, bytes] = {}
    chance = random.Random(5)
    for step in range(120):
        if step % 30 == 29:
            assert client.call("NSJUMP") == b"OK"
        value = b"%d:" % step + chance.randbytes(chance.randrange(40))
        if values and step % 3 == 0:
            key = chance.choice(sorted(values))
            assert client.call("SET", key, value) == key
            values[key] = value
        elif values and step % 11 == 0:
            key = chance.choice(sorted(values))
            assert client.call("DEL", key) == b"OK"
            del values[key]
        else:
            got = client.call("SET", "", value)
            assert isinstance(got, bytes)
            assert got not in values
            values[got] = value
    return values


def _holds(client: Client, values: dict[bytes, bytes]) -> None:
    assert client.call("DBSIZE") == len(values)
    for key, value in values.items():
        assert client.call("GET", key) == value


def _next_id(client: Client) -> int:
    got = client.call("SET", "", "one more")
    assert isinstance(got, bytes)
    return int.from_bytes(got, "little")


def test_an_update_consumes_an_id(tmp_path: Path) -> None:
    """Ids count up from 0; an update takes one; a deleted id can never be set again; unknown ones neither."""
    with daemon(tmp_path / "z", "--mode", "seq") as running:
        client = running.client()
        assert client.call("SET", "", "zero") == id_bytes(0)
        assert client.call("SET", id_bytes(0), "nought") == id_bytes(0)
        assert client.call("SET", "", "two") == id_bytes(2)
        assert client.call("SET", id_bytes(2), "two") is None
        assert client.call("DEL", id_bytes(2)) == b"OK"
        for key in (id_bytes(2), id_bytes(1), id_bytes(77), b"short", b"far too long"):
            assert client.error("SET", key, "x") == "Invalid key, only update authorized"
            assert client.call("GET", key) is None
        assert info_of(client, "NSINFO", "default")["mode"] == "sequential"
        assert info_of(client, "NSINFO", "default")["next_internal_id"] == "0x300000000000000"
        assert client.error("NSSET", "default", "mode", "user").startswith("This server instance")
        assert client.error("KSCAN", "x").startswith("Command disabled")


def test_a_namespace_changes_mode_only_while_untouched(tmp_path: Path) -> None:
    """In a mixed daemon each namespace has its mode; one that was written to keeps it, also over a restart."""
    with daemon(tmp_path / "z", "--debug-commands") as running:
        client = running.client()
        assert client.call("NSNEW", "ids") == b"OK"
        assert client.call("NSSET", "ids", "mode", "seq") == b"OK"
        assert client.error("NSSET", "ids", "mode", "both").startswith("Invalid property value")
        assert client.call("SELECT", "ids") == b"OK"
        assert client.call("SET", "", "first") == id_bytes(0)
        assert client.error("NSSET", "ids", "mode", "user") == "Cannot change mode of used namespace"
        assert client.error("KSCAN", "x") == "Index running mode doesn't support this feature"
        assert client.call("SELECT", "default") == b"OK"
        assert client.error("SET", "", "x") == "Invalid argument, key needed"
        assert client.call("STOP") == b"Stopping"
        assert running.process.wait(20) == 0
    with daemon(tmp_path / "z") as running:
        client = running.client()
        assert client.call("SELECT", "ids") == b"OK"
        assert client.call("GET", id_bytes(0)) == b"first"
    for mode in ("user", "seq"):
        with pytest.raises(RuntimeError, match="serves"):
            Daemon(tmp_path / "z", "--mode", mode)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_ids_survive_any_end(tmp_path: Path, end: str) -> None:
    """After a stop and after a kill all ids have their values, and no id is given twice."""
    home = tmp_path / "z"
    with daemon(home, "--mode", "seq") as running:
        client = running.client()
        values = _fill(client)
        count = _next_id(client) + 1
        values[id_bytes(count - 1)] = b"one more"
        if end == "kill":
            running.kill()
        else:
            assert running.stop() == 0
    with daemon(home, "--mode", "seq") as running:
        client = running.client()
        _holds(client, values)
        assert _next_id(client) == count
        assert "recovery.found" not in running.log.read_text()


@pytest.mark.parametrize("damage", ["no index", "no newest index", "short index", "torn slot", "old slot", "no header"])
def test_slots_are_rebuilt_from_the_data(tmp_path: Path, damage: str) -> None:
    """Whatever became of the index files, the data files give back every id, its value and its place."""
    home = tmp_path / "z"
    with daemon(home, "--mode", "seq") as running:
        values = _fill(running.client())
        count = _next_id(running.client())
        values[id_bytes(count)] = b"one more"
        running.kill()
    index = home / "index" / "default"
    files = sorted(index.glob("i*"), key=lambda path: int(path.name[1:]))
    before = [path.read_bytes() for path in files]
    if damage == "no index":
        for path in files:
            path.unlink()
    elif damage == "no newest index":
        files[-1].unlink()
    elif damage == "short index":
        files[-1].write_bytes(before[-1][: INDEX_HEADER.size + 3 * SLOT_BYTES + 17])
    elif damage == "torn slot":
        torn = bytearray(before[0])
        torn[INDEX_HEADER.size : INDEX_HEADER.size + 20] = bytes(20)
        files[0].write_bytes(torn)
    elif damage == "old slot":
        files[0].write_bytes(before[0][: INDEX_HEADER.size] + bytes(len(before[0]) - INDEX_HEADER.size))
    else:
        files[1].write_bytes(b"")
    with daemon(home, *(("--mode", "seq") if damage == "no index" else ())) as running:
        client = running.client()
        _holds(client, values)
        assert _next_id(client) == count + 1
        running.kill()
    assert files[0].read_bytes() == before[0]


def test_a_torn_update_leaves_the_value_before(tmp_path: Path) -> None:
    """A cut in the record of an update gives back the version before it, and its slot is not given again."""
    home = tmp_path / "z"
    with daemon(home, "--mode", "seq") as running:
        client = running.client()
        assert client.call("SET", "", "old value") == id_bytes(0)
        assert client.call("SET", id_bytes(0), "new value, longer") == id_bytes(0)
        running.kill()
    data = home / "data" / "default" / "d0"
    data.write_bytes(data.read_bytes()[:-3])
    with daemon(home) as running:
        client = running.client()
        assert client.call("GET", id_bytes(0)) == b"old value"
        assert _next_id(client) == 2


def test_ids_keep_their_history(tmp_path: Path) -> None:
    """The versions of an id are told from the newest back, across files, also after the data was replayed."""
    home = tmp_path / "z"
    with daemon(home, "--mode", "seq") as running:
        client = running.client()
        for number in range(6):
            assert client.call("SET", "" if number == 0 else id_bytes(0), f"v{number}") == id_bytes(0)
            assert client.call("NSJUMP") == b"OK"
        running.kill()
    shutil.copytree(home, tmp_path / "copy")
    for path in (tmp_path / "copy" / "index" / "default").glob("i*"):
        path.unlink()
    for place in (home, tmp_path / "copy"):
        with daemon(place) as running:
            client = running.client()
            found = []
            at: list[bytes] = []
            for _ in range(6):
                reply = client.call("HISTORY", id_bytes(0), *at)
                assert isinstance(reply, list)
                found.append(reply[2])
                at = [reply[0]] if isinstance(reply[0], bytes) else []
            assert found == [b"v5", b"v4", b"v3", b"v2", b"v1", b"v0"]
            assert at == []


def test_scans_go_in_order_of_ids(tmp_path: Path) -> None:
    """SCAN and RSCAN give every live id once, in order, over empty files and after updates."""
    with daemon(tmp_path / "z", "--mode", "seq") as running:
        client = running.client()
        values = _fill(client)
        for _ in range(3):
            assert client.call("NSJUMP") == b"OK"
        forward = client.call("SCAN")
        backward = client.call("RSCAN")
        assert isinstance(forward, list) and isinstance(backward, list)
        names = [row[0] for row in forward[1]]  # type: ignore[index,union-attr]
        assert names == sorted(values, key=lambda key: int.from_bytes(key, "little"))
        assert [row[0] for row in backward[1]] == names[::-1]  # type: ignore[index,union-attr]


def test_a_full_disk_does_not_hide_what_lies_before_a_file_that_never_came(tmp_path: Path) -> None:
    """A data file whose entry never reached the disk is begun anew; where nothing can be written, all else is there."""
    with daemon(tmp_path / "z", "--mode", "seq") as running:
        client = running.client()
        ids = [client.call("SET", "", f"value {number}") for number in range(3)]
    index, data = (str(tmp_path / "z" / part / "default") for part in ("index", "data"))
    missing = Path(data, "d1")
    slot = IndexRecord(0, DATA_HEADER.size, 5, 0, 0, 1, 0, 0, 0, 0, id_bytes(3))
    Path(index, "i1").write_bytes(index_header(1, MODE_SEQUENTIAL) + pack_index_record(slot))
    checkpoint = load_checkpoint(index, [])
    found = recover(index, data, checkpoint, readonly=True)
    assert [key for key in ids if isinstance(key, bytes) and found.keys.get(key) is None] == []
    assert not missing.exists()
    assert found.changed
    assert found.index_records == 4, "an id that may have been told is not given again"
    recover(index, data, checkpoint)
    assert missing.exists()
