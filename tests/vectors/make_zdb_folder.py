"""Generator of `zdb_folder.json`: a folder as an original 0-db 2.0.7 writes it, its oddities included.

Written from the format's page, with nothing of the daemon, so that a test can ask whether the daemon, and a real 0-db
where there is one, write and read just these bytes for the commands in `SCRIPT`.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

Words = tuple[str, ...]

SCRIPT: tuple[Words, ...] = (
    ("SET", "alpha", "one", "1600000001"),
    ("SET", "beta", "two", "1600000002"),
    ("SET", "alpha", "one, changed", "1600000003"),
    ("DEL", "beta", "1600000004"),
    ("SET", "empty", "", "1600000005"),
    ("SET", "alpha", "one, changed", "1600000006"),
    ("NSJUMP",),
    ("SET", "gamma", "first written in a later file", "1600000007"),
    ("SET", "alpha", "one, changed in a later file", "1600000008"),
    ("SET", "beta", "two is back", "1600000009"),
    ("DEL", "empty", "1600000010"),
    ("NSNEW", "ids"),
    ("NSSET", "ids", "mode", "seq"),
    ("SELECT", "ids"),
    ("SET", "", "zero", "1600000011"),
    ("SET", "", "one", "1600000012"),
    ("SET", "id:0", "zero, changed", "1600000013"),
    ("NSJUMP",),
    ("SET", "", "four: two was the version before", "1600000014"),
    ("SET", "id:1", "one, changed in a later file", "1600000015"),
    ("DEL", "id:0", "1600000016"),
    ("NSSET", "ids", "password", "a-long-password"),
    ("NSSET", "ids", "password", "short"),
)
"""What a client says. `id:N` stands for the eight bytes of an id."""

DELETED = 1


def crc_of(payload: bytes) -> int:
    """CRC-32C from 0 without inversion, a bit at a time."""
    crc = 0
    for byte in payload:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


@dataclass
class Segment:
    """One dN and its iN."""

    data: bytearray
    index: bytearray


@dataclass
class Folder:
    """One namespace, as the original keeps it. `live`: where a key's index record is."""

    sequential: bool = False
    segments: list[Segment] = field(default_factory=list)
    live: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    ids: list[tuple[int, int]] = field(default_factory=list)
    data_before: int = 0
    index_before: int = 0

    def __post_init__(self) -> None:
        self.jump()

    def jump(self) -> None:
        number = len(self.segments)
        head = struct.pack("<IQQI", 3, 0, 0, number)
        index = struct.pack("<IQQIB", 4, 0, 0, number, self.sequential)
        self.segments.append(Segment(bytearray(b"DAT0" + head), bytearray(b"IDX0" + index)))

    def _data(self, key: bytes, payload: bytes, flags: int, time: int) -> int:
        data = self.segments[-1].data
        offset, crc = len(data), 0 if flags else crc_of(payload)
        data += struct.pack("<BIIIBI", len(key), len(payload), self.data_before, crc, flags, time) + key + payload
        self.data_before = offset
        return offset

    def _flag(self, place: tuple[int, int]) -> None:
        self.segments[place[0]].index[place[1] + 13] |= DELETED

    def _append(self, record: bytes) -> tuple[int, int]:
        index = self.segments[-1].index
        place = (len(self.segments) - 1, len(index))
        index += record[:9] + struct.pack("<I", self.index_before) + record[13:]
        self.index_before = place[1]
        if self.sequential:
            self.ids.append(place)
        return place

    def put(self, key: bytes, payload: bytes, time: int) -> None:
        number = len(self.segments) - 1
        old = self.live.get(key)
        if self.sequential and not key:
            key = struct.pack("<Q", len(self.ids))
        offset = self._data(key, payload, 0, time)
        # A key's first record says file 0 in user mode, wherever its value lies.
        home = number if old is not None or self.sequential else 0

        def record(parent: tuple[int, int]) -> bytes:
            head = struct.pack("<BIIIBI", len(key), offset, len(payload), 0, 0, home)
            return head + struct.pack("<IIII", time, crc_of(payload), *parent) + key

        if not self.sequential:
            if old is not None:
                self._flag(old)
            self.live[key] = self._append(record(old or (0, 0)))
        elif old is None:
            self.live[key] = self._append(record((0, 0)))
        else:
            index, at = self.segments[old[0]].index, old[1]
            copy = self._append(bytes(index[at : at + 42]))
            self._flag(copy)
            fresh = record(copy)
            index[at : at + 42] = fresh[:9] + index[at + 9 : at + 13] + fresh[13:]

    def delete(self, key: bytes, time: int) -> None:
        self._data(key, b"", DELETED, time)
        self._flag(self.live.pop(key))


def word(text: str) -> bytes:
    """A word of the script as it goes over the wire."""
    return struct.pack("<Q", int(text[3:])) if text.startswith("id:") else text.encode()


def descriptor(name: bytes, password: bytes, leftover: bytes) -> bytes:
    """Written in place over a longer one, whose end stays."""
    return struct.pack("<IBBQB", 1, len(name), len(password), 0, 5) + name + password + leftover


def folder() -> dict[str, bytes]:
    """All files below the two roots, after `SCRIPT`."""
    spaces = {"default": Folder(), "ids": Folder(sequential=True)}
    at = spaces["default"]
    for verb, *words in SCRIPT:
        if verb == "SELECT":
            at = spaces[words[0]]
        elif verb == "NSJUMP":
            at.jump()
        elif verb == "DEL":
            at.delete(word(words[0]), int(words[1]))
        elif verb == "SET" and words[2] != "1600000006":  # the same value again writes nothing
            at.put(word(words[0]), word(words[1]), int(words[2]))
    files = {
        "index/default/zdb-namespace": descriptor(b"default", b"", b""),
        "index/ids/zdb-namespace": descriptor(b"ids", b"short", b"a-long-password"[5:]),
    }
    for name, space in spaces.items():
        for number, segment in enumerate(space.segments):
            files[f"data/{name}/d{number}"] = bytes(segment.data)
            files[f"index/{name}/i{number}"] = bytes(segment.index)
    return dict(sorted(files.items()))


def vectors() -> dict[str, str]:
    """Path and bytes of each file."""
    return {path: data.hex() for path, data in folder().items()}


if __name__ == "__main__":
    Path(__file__).with_name("zdb_folder.json").write_text(json.dumps(vectors(), indent=2) + "\n")
