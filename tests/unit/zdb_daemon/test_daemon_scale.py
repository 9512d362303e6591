"""Thousands of namespaces and connections in bounded descriptors, and a million keys in bounded memory."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from tests.unit.zdb_daemon.harness import Client, Daemon, daemon, encode

_DESCRIPTORS_MAX = 400
"""Two for each of 128 newest pairs, 64 older files, and what a process has anyway."""


def _descriptors(running: Daemon) -> int:
    return len(os.listdir(f"/proc/{running.process.pid}/fd"))


def _few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))


def _in_all(client: Client, names: list[str], *words: str) -> list[object]:
    """Select each namespace and say the words there; replies in order."""
    found: list[object] = []
    for start in range(0, len(names), 200):
        part = names[start : start + 200]
        client.sock.sendall(b"".join(encode("SELECT", name) + encode(*words) for name in part))
        for _ in part:
            assert client.read() == b"OK"
            found.append(client.read())
    return found


def many_namespaces(home: Path, count: int) -> None:
    names = [f"ns-{number}" for number in range(count)]
    with daemon(home, "--no-sync", before=_few_descriptors) as running:
        client = running.client()
        for name in names:
            client.send("NSNEW", name)
        assert all(client.read() == b"OK" for _ in names)
        assert _in_all(client, names, "SET", "key", "value") == [b"key"] * count
        assert _in_all(client, names, "GET", "key") == [b"value"] * count
        # Twice over all, so that every pair was let go and opened again.
        assert _in_all(client, names, "SET", "key", "other") == [b"key"] * count
        assert _in_all(client, names, "GET", "key") == [b"other"] * count
        assert _descriptors(running) < _DESCRIPTORS_MAX
        listed = client.call("NSLIST")
        assert isinstance(listed, list)
        assert len(listed) == count + 1
        info = client.call("NSINFO", names[-1])
        assert isinstance(info, bytes)
        assert b"entries: 1\n" in info
        assert isinstance(client.call("INFO"), bytes)
        running.kill()
    with daemon(home, before=_few_descriptors) as running:
        client = running.client()
        assert _descriptors(running) < _DESCRIPTORS_MAX
        assert _in_all(client, names, "GET", "key") == [b"other"] * count
        # Everything is dirty at once, and one barrier covers it.
        assert _in_all(client, names, "SET", "more", "data") == [b"more"] * count
        flushed = client.call("WAITAOF", "1", "0", "0")
        assert isinstance(flushed, list)
        assert flushed[0] == 1
        assert _descriptors(running) < _DESCRIPTORS_MAX
        assert running.stop() == 0


def test_two_thousand_namespaces_share_a_few_descriptors(tmp_path: Path) -> None:
    """Two thousand namespaces, written, read, flushed and opened again by a daemon that may open 512 files."""
    many_namespaces(tmp_path / "z", 2000)


@pytest.mark.soak
def test_five_thousand_namespaces_share_a_few_descriptors(tmp_path: Path) -> None:
    """The long form: 5,000 namespaces."""
    many_namespaces(tmp_path / "z", 5000)
