"""History, backward scans, watching, raw records, emptying: the rest of the original's words."""

from __future__ import annotations

from pathlib import Path

from fungistor.zdb.daemon.format import DATA_HEADER, checksum
from tests.unit.zdb_daemon.harness import Client, daemon


def _versions(client: Client, key: str) -> list[object]:
    found: list[object] = []
    at: list[bytes] = []
    while True:
        reply = client.call("HISTORY", key, *at)
        assert isinstance(reply, list), reply
        found.append(reply[2])
        if not isinstance(reply[0], bytes):
            return found
        at = [reply[0]]


def test_history_is_right_in_every_file(tmp_path: Path) -> None:
    """Versions come newest first, each with its own bytes, whatever file a key began in; a deletion ends the chain."""
    with daemon(tmp_path / "z") as running:
        client = running.client()
        client.call("SET", "other", "bytes of another file")
        assert client.call("NSJUMP") == b"OK"
        for number in range(5):
            client.call("SET", "k", f"value {number}", str(1000 + number))
            if number % 2:
                client.call("NSJUMP")
        assert _versions(client, "k") == [b"value 4", b"value 3", b"value 2", b"value 1", b"value 0"]
        reply = client.call("HISTORY", "k")
        assert isinstance(reply, list)
        assert reply[1] == b"1004"
        assert client.error("HISTORY", "none") == "Key not found"
        assert client.error("HISTORY", "k", bytes(8)) == "No more history"
        assert client.error("HISTORY", "k", "short") == "Invalid arguments"
        assert client.error("HISTORY") == "Invalid arguments"
        assert client.error("HISTORY", "k", b"\0\0\0\0\xff\xff\0\0") == "Invalid arguments (index query)"
        assert isinstance(reply[0], bytes)
        assert client.error("HISTORY", "x", reply[0]) == "Invalid arguments (invalid key)"
        assert client.call("DEL", "k") == b"OK"
        client.call("SET", "k", "anew")
        assert _versions(client, "k") == [b"anew"]


def test_a_backward_scan_goes_over_empty_files(tmp_path: Path) -> None:
    """RSCAN gives all keys, newest first, also where files are empty and where pages of a thousand end."""
    with daemon(tmp_path / "z") as running:
        client = running.client()
        assert client.error("RSCAN") == "No more data"
        names = [b"key-%04d" % number for number in range(2300)]
        for start in range(0, len(names), 100):
            for name in names[start : start + 100]:
                client.send("SET", name, "v")
            for _ in range(100):
                client.read()
            if start % 500 == 0:
                assert client.call("NSJUMP") == b"OK"
                assert client.call("NSJUMP") == b"OK"
        client.call("DEL", names[7])
        assert client.call("NSJUMP") == b"OK"
        found: list[object] = []
        cursor: list[bytes] = []
        while True:
            reply = client.call("RSCAN", *cursor)
            if not isinstance(reply, list):
                break
            assert isinstance(reply[0], bytes) and isinstance(reply[1], list)
            cursor = [reply[0]]
            found += [row[0] for row in reply[1] if isinstance(row, list)]
        assert found == [name for name in reversed(names) if name != names[7]]
        assert client.error("RSCAN", "not a cursor") == "Invalid key format"


def test_kscan_and_stop_are_for_tests(tmp_path: Path) -> None:
    """KSCAN finds keys by prefix and STOP ends the daemon, both only with --debug-commands."""
    with daemon(tmp_path / "z") as running:
        client = running.client()
        assert client.error("STOP") == "Unauthorized"
        assert client.error("KSCAN", "a").startswith("Command disabled in release code")
    with daemon(tmp_path / "z", "--debug-commands") as running:
        client = running.client()
        for name in ("apple", "april", "bean"):
            client.call("SET", name, "v")
        assert client.call("KSCAN", "ap") == [b"0", [b"apple", b"april"]]
        assert client.error("KSCAN", "x") == "No keys match"
        assert client.error("KSCAN") == "Unexpected arguments"
        assert client.error("KSCAN", "") == "Invalid argument"
        assert client.call("STOP") == b"Stopping"
        assert running.process.wait(20) == 0


def test_wait_is_told_of_another_clients_command(tmp_path: Path) -> None:
    """WAIT answers when somebody else in the namespace executes the command, and its own requests go on meanwhile."""
    with daemon(tmp_path / "z") as running:
        waiter, other, elsewhere = running.client(), running.client(), running.client()
        assert waiter.error("WAIT") == "Invalid arguments"
        assert waiter.error("WAIT", "nonexisting") == "Unknown command to watch"
        for time in ("99", "1800001", "abc", "1" * 17):
            assert waiter.error("WAIT", "SET", time) == "Invalid timeout"
        assert elsewhere.call("NSNEW", "else") == b"OK"
        assert elsewhere.call("SELECT", "else") == b"OK"
        waiter.send("WAIT", "set", "60000")
        assert waiter.call("PING") == b"PONG"
        elsewhere.call("SET", "k", "v")
        other.call("SETX", "k", "v")
        waiter.send("PING")
        assert waiter.read() == b"PONG"
        other.call("SET", "k", "v")
        assert waiter.read() == b"SET"
        waiter.send("WAIT", "*")
        assert waiter.call("PING") == b"PONG"
        other.call("GET", "missing")
        assert waiter.read() == b"GET"
        assert waiter.error("WAIT", "DEL", "100") == "Timeout"


def test_a_mirror_sees_what_others_execute(tmp_path: Path) -> None:
    """MIRROR sends each request of all other clients with time, namespace and owner; MASTER says the owner."""
    with daemon(tmp_path / "z") as running:
        mirror, writer = running.client(), running.client()
        assert mirror.call("MIRROR") == b"Starting mirroring"
        writer.call("SET", "k", b"v\r\n\0")
        seen = mirror.read()
        assert isinstance(seen, list)
        assert seen[1] == b"default"
        assert isinstance(seen[2], int) and seen[2] > 0
        assert seen[3:] == [b"SET", b"k", b"v\r\n\0"]
        assert writer.call("MASTER") == b"Hello, master"
        assert mirror.read() is not None
        assert writer.call("GET", "k", "4711") == b"v\r\n\0"
        seen = mirror.read()
        assert isinstance(seen, list)
        assert seen[2:] == [4711, b"GET", b"k"]


def test_a_master_is_told_the_password(tmp_path: Path) -> None:
    """NSINFO of a master has the namespace's password, of nobody else."""
    with daemon(tmp_path / "z") as running:
        client = running.client()
        client.call("NSNEW", "n")
        client.call("NSSET", "n", "password", "secret")
        assert b"password_raw" not in bytes(client.call("NSINFO", "n"))  # type: ignore[arg-type]
        client.call("MASTER")
        assert b"password_raw: secret" in bytes(client.call("NSINFO", "n", "1"))  # type: ignore[arg-type]


def test_raw_records_show_deletions_and_empty_values(tmp_path: Path) -> None:
    """DATA RAW gives every record of the data file, from the first to EOF."""
    with daemon(tmp_path / "z") as running:
        client = running.client()
        client.call("SET", "a", "value", "1700000000")
        client.call("SET", "b", "", "1700000001")
        client.call("DEL", "a", "1700000002")
        offset, found = DATA_HEADER.size, []
        while isinstance(record := client.call("DATA", "RAW", "0", str(offset)), list):
            found.append((offset, record))
            assert isinstance(record[0], bytes) and isinstance(record[5], bytes)
            offset += 18 + len(record[0]) + len(record[5])
        crc = b"0x%08x" % checksum(b"value")
        assert [record for _, record in found] == [
            [b"a", 0, crc, 0, 1700000000, b"value"],
            [b"b", found[0][0], b"0x00000000", 0, 1700000001, b""],
            [b"a", found[1][0], b"0x00000000", 1, 1700000002, b""],
        ]
        assert client.error("DATA", "RAW", "0", str(offset)) == "EOF"
        assert client.error("DATA", "RAW", "0", str(DATA_HEADER.size + 3)) == "Unexpected Internal Error"
        assert client.error("DATA", "RAW", "9", "28") == "Invalid Request"
        assert client.error("DATA", "COOKED") == "Unknown DATA subcommand"
        assert client.error("DATA") == "Missing arguments"


def test_index_dirty_names_files_changed_in_place(tmp_path: Path) -> None:
    """An update of an older version dirties its index file until the list is reset."""
    with daemon(tmp_path / "z") as running:
        client = running.client()
        client.call("SET", "k", "1")
        client.call("NSJUMP")
        assert client.call("INDEX", "DIRTY") == []
        client.call("SET", "k", "2")
        assert client.call("INDEX", "DIRTY") == [0]
        assert client.error("INDEX", "DIRTY", "NOW") == "Unknown INDEX DIRTY subcommand"
        assert client.call("INDEX", "DIRTY", "RESET") == b"OK"
        assert client.call("INDEX", "DIRTY") == []
        assert client.error("INDEX", "CLEAN") == "Unknown INDEX subcommand"
        assert client.error("INDEX") == "Missing arguments"


def test_flush_empties_a_private_namespace(tmp_path: Path) -> None:
    """FLUSH leaves no key, no file and no history of before, keeps the properties, and stays so over a kill."""
    home = tmp_path / "z"
    with daemon(home) as running:
        client = running.client()
        assert client.error("FLUSH") == "Flushing public namespace denied"
        for words in (("NSNEW", "n"), ("NSSET", "n", "password", "pw"), ("NSSET", "n", "public", "0")):
            assert client.call(*words) == b"OK"
        assert client.call("SELECT", "n", "pw") == b"OK"
        for number in range(40):
            client.call("SET", f"k{number % 7}", f"{number}")
            if number % 10 == 9:
                client.call("NSJUMP")
        assert client.call("FLUSH") == b"OK"
        assert client.call("DBSIZE") == 0
        assert client.error("SCAN") == "No more data"
        client.call("SET", "k1", "after")
        assert sorted(path.name for path in (home / "data" / "n").iterdir()) == ["d0"]
        running.kill()
    with daemon(home) as running:
        client = running.client()
        assert client.error("SELECT", "n") == "Namespace protected and private"
        assert client.call("SELECT", "n", "pw") == b"OK"
        assert client.call("DBSIZE") == 1
        assert _versions(client, "k1") == [b"after"]


def test_a_flush_that_was_begun_is_finished_at_the_start(tmp_path: Path) -> None:
    """A kill in the middle of a FLUSH leaves nothing of the old values, however far it came."""
    home = tmp_path / "z"
    with daemon(home) as running:
        client = running.client()
        for number in range(20):
            client.call("SET", f"k{number}", "old")
            client.call("NSJUMP")
        running.kill()
    (home / "index" / "default" / "fungistor-flush").touch()
    for number in range(5, 21):
        (home / "data" / "default" / f"d{number}").unlink()
    with daemon(home) as running:
        assert running.client().call("DBSIZE") == 0
    assert not (home / "index" / "default" / "fungistor-flush").exists()


def test_reload_reads_the_files_again(tmp_path: Path) -> None:
    """RELOAD keeps everything, also what was written a moment ago, and its clients stay attached."""
    with daemon(tmp_path / "z", "--admin", "root") as running:
        client, other = running.client(), running.client()
        assert client.error("RELOAD", "default") == "Permission denied"
        assert client.call("AUTH", "root") == b"OK"
        for number in range(50):
            other.call("SET", f"k{number % 20}", f"{number}")
        client.call("NSJUMP")
        assert client.call("RELOAD", "default") == b"OK"
        assert other.call("GET", "k3") == b"43"
        assert other.call("DBSIZE") == 20
        other.call("SET", "k3", "after")
        assert _versions(other, "k3")[:2] == [b"after", b"43"]
        assert client.error("RELOAD", "none") == "Namespace not found"
