"""What a folder must hold, whichever daemon serves it: a random workload over the wire, and a comparison with it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.unit.zdb_daemon.harness import Client, ErrorReply, Reply

PLAIN = (b"name", b"entries", b"public", b"worm", b"password", b"data_size_bytes", b"data_limits_bytes", b"mode")
ADMIN = (b"index_size_bytes", b"data_current_id")
SIZES = (0, 1, 20, 300, 5000, 40_000)


@dataclass
class Version:
    """One value of a key. `misread`: the original wrote it as a key's first in a later file, and its HISTORY reads such
    values out of the wrong file."""

    value: bytes
    time: int
    misread: bool = False


@dataclass
class Space:
    """One namespace: how to make it, and what must be in it. Versions of a key are oldest first."""

    name: str
    properties: dict[str, str] = field(default_factory=dict)
    keys: dict[bytes, list[Version]] = field(default_factory=dict)
    gone: set[bytes] = field(default_factory=set)
    cursors: dict[bytes, Reply] = field(default_factory=dict)

    @property
    def sequential(self) -> bool:
        return self.properties.get("mode") == "seq"

    def make(self, client: Client) -> None:
        if self.name != "default":
            assert client.call("NSNEW", self.name) == b"OK"
        for name, value in self.properties.items():
            assert client.call("NSSET", self.name, name, value) == b"OK"

    def enter(self, client: Client) -> None:
        password = self.properties.get("password")
        assert client.call("SELECT", self.name, *([password] if password else [])) == b"OK"

    def work(self, client: Client, chance: random.Random, steps: int, *, misreads: bool) -> None:
        """Sets, updates, deletions and jumps. `misreads`: this is the original."""
        self.enter(client)
        self.cursors = {}
        for step in range(steps):
            if chance.random() < 0.04:
                self._jump(client)
            elif self.keys and chance.random() < 0.2:
                self._delete(client, chance.choice(sorted(self.keys)))
            else:
                self._set(client, chance, 1_600_000_000 + step, misreads=misreads)

    def _jump(self, client: Client) -> None:
        """Rotate; no file of ids stays empty, since the original does not find those behind or in one that was."""
        assert client.call("NSJUMP") == b"OK"
        if self.sequential:
            reply = client.call("SET", "", "", "1500000000")
            assert isinstance(reply, bytes)
            assert reply not in self.keys
            self.keys[reply] = [Version(b"", 1500000000)]

    def _set(self, client: Client, chance: random.Random, time: int, *, misreads: bool) -> None:
        key = b"key-%d" % chance.randrange(25)
        if self.sequential:
            key = chance.choice(sorted(self.keys)) if self.keys and chance.random() < 0.5 else b""
        value = chance.randbytes(chance.choice(SIZES))
        reply = client.call("SET", key, value, str(time))
        if isinstance(reply, ErrorReply):
            refused = {"No space left on this namespace": "maxsize", "Namespace is protected by worm mode": "worm"}
            assert refused[str(reply)] in self.properties
            return
        if reply is None:
            assert self.keys[key][-1].value == value
            return
        assert isinstance(reply, bytes)
        assert reply == key or (self.sequential and not key)
        assert reply not in self.keys or key, "an id was given twice"
        assert not (self.sequential and reply in self.gone), "a deleted id came back"
        self.gone.discard(reply)
        first = reply not in self.keys
        wrong = first and misreads and not self.sequential and self.told(client)[b"data_current_id"] != b"0"
        self.keys.setdefault(reply, []).append(Version(value, time, wrong))

    def _delete(self, client: Client, key: bytes) -> None:
        reply = client.call("DEL", key)
        if "worm" in self.properties:
            assert str(reply) == "Cannot delete a key when namespace is in worm mode"
            return
        assert reply == b"OK"
        del self.keys[key]
        self.gone.add(key)

    def told(self, client: Client) -> dict[bytes, bytes]:
        """NSINFO's lines that say the same in every daemon."""
        text = client.call("NSINFO", self.name)
        assert isinstance(text, bytes)
        lines = dict(line.split(b": ", 1) for line in text.splitlines() if b": " in line)
        return {name: lines[name] for name in (*PLAIN, *ADMIN)}

    def leave(self, client: Client) -> tuple[object, ...]:
        """What the next daemon must say, too: properties, order of keys, and cursors that it has to understand."""
        self.enter(client)
        self.cursors = {key: client.call("KEYCUR", key) for key in sorted(self.keys)[:8]}
        return (self.told(client), self.scanned(client))

    def scanned(self, client: Client, cursor: Reply = None) -> list[Reply]:
        """All of SCAN, in its order: key, length, time."""
        found: list[Reply] = []
        while True:
            page = client.call("SCAN", *([cursor] if isinstance(cursor, bytes) else []))
            if isinstance(page, ErrorReply):
                assert str(page) == "No more data"
                return found
            assert isinstance(page, list) and isinstance(page[1], list)
            cursor = page[0]
            found += page[1]

    def check(self, client: Client, *, misreads: bool) -> None:
        """Every value, time, length, checksum and history, and none of what was deleted."""
        self.enter(client)
        assert client.call("DBSIZE") == len(self.keys)
        assert int(self.told(client)[b"data_size_bytes"]) == sum(len(v[-1].value) for v in self.keys.values())
        listed = self.scanned(client)
        assert sorted(listed, key=repr) == sorted(
            ([key, len(v[-1].value), v[-1].time] for key, v in self.keys.items()), key=repr
        )
        for key, versions in self.keys.items():
            now = versions[-1]
            assert client.call("GET", key) == now.value
            assert client.call("LENGTH", key) == len(now.value)
            assert client.call("KEYTIME", key) == now.time
            assert client.call("CHECK", key) == 1
            told = history(client, key)
            assert len(told) == len(versions)
            for reply, version in zip(told, reversed(versions), strict=True):
                assert reply == (version.time, version.value) or (misreads and version.misread)
        for key in self.gone:
            assert client.call("GET", key) is None
            assert client.call("EXISTS", key) == 0
        for key, cursor in self.cursors.items():
            assert client.call("KEYCUR", key) == cursor
            at = next(place for place, entry in enumerate(listed) if isinstance(entry, list) and entry[0] == key)
            assert self.scanned(client, cursor) == listed[at + 1 :]


def history(client: Client, key: bytes) -> list[tuple[int, Reply]]:
    """Times and values of a key, newest first, up to an error, if there is one."""
    found: list[tuple[int, Reply]] = []
    older: list[bytes] = []
    while True:
        reply = client.call("HISTORY", key, *older)
        if not isinstance(reply, list):
            return [*found, (0, reply)]
        ekey, time, value = reply
        assert isinstance(time, bytes)
        found.append((int(time), value))
        if not isinstance(ekey, bytes):
            return found
        older = [ekey]


def spaces() -> list[Space]:
    """One of each kind."""
    return [
        Space("default"),
        Space("private", {"password": "open-sesame", "public": "0"}),
        Space("readable", {"password": "secret", "public": "1"}),
        Space("limited", {"maxsize": "150000"}),
        Space("written-once", {"worm": "1"}),
        Space("ids", {"mode": "seq"}),
        Space("private-ids", {"mode": "seq", "password": "pw", "public": "0", "maxsize": "400000"}),
    ]
