"""An interrupted publish is taken up: what was stored is not stored again, and nothing old is taken for new."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fungistor.errors import UnavailableError
from fungistor.objects.lease import Lease
from fungistor.objects.results import PublishFailure, PublishOptions, PublishOutcome
from fungistor.objects.upload_journal import KEPT_S, STRIPES_NAME
from fungistor.testing.memory_network import MemoryNetwork, members

MIB = 1 << 20
SIZE = 24 * MIB


@pytest.fixture
def network(tmp_path: Path) -> Iterator[MemoryNetwork]:
    with MemoryNetwork(str(tmp_path / "net"), members(20)) as made:
        yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(random.Random(4).randbytes(SIZE))
    return path


def publish(network: MemoryNetwork, path: Path) -> PublishOutcome | PublishFailure:
    (result,) = network.publish_all([str(path)], PublishOptions())
    return result


def content(network: MemoryNetwork, done: PublishOutcome) -> bytes:
    return b"".join(network.read(done.cid))


class Cut:
    """Counts the bytes of shards that go out, and ends the publish after so many puts or at the commit."""

    def __init__(self, network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        self.puts_left: int | None = None
        self.error: BaseException = KeyboardInterrupt()
        put: Callable[..., Any] = network.store.put

        def counted(stripe_id: Any, layout: Any, k: int, m: int, shards: Any) -> Any:
            if self.puts_left is not None:
                self.puts_left -= 1
                if self.puts_left < 0:
                    raise self.error
            self.bytes += sum(len(payload) for payload, _ in shards)
            return put(stripe_id, layout, k, m, shards)

        monkeypatch.setattr(network.store, "put", counted)


def left_folders(network: MemoryNetwork) -> list[str]:
    return sorted(entry.path for entry in os.scandir(network.journal))


def test_what_an_interrupted_publish_stored_is_not_stored_again(
    network: MemoryNetwork, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after some stripes: the next publish sends the rest and the manifest, reads whole, and leaves nothing."""
    cut = Cut(network, monkeypatch)
    cut.puts_left = 4
    with pytest.raises(KeyboardInterrupt):
        publish(network, path)
    (folder,) = left_folders(network)
    assert sorted(os.listdir(folder)) == ["session.json", STRIPES_NAME]
    first, cut.bytes, cut.puts_left = cut.bytes, 0, None
    assert first > 10 * MIB
    done = publish(network, path)
    assert isinstance(done, PublishOutcome)
    assert cut.bytes < 1.35 * SIZE - first
    assert (done.survives, done.owed, done.size) == (4, 0, SIZE)
    assert done.new < done.stored
    assert content(network, done) == path.read_bytes()
    assert left_folders(network) == []


def test_a_commit_that_failed_sends_no_content_again(
    network: MemoryNetwork, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the catalog lost at the commit all content is found again: only the manifest is written anew."""
    cut = Cut(network, monkeypatch)
    with monkeypatch.context() as lost:

        def no_quorum(*_: object, **__: object) -> None:
            raise UnavailableError("no quorum")

        lost.setattr(Lease, "commit", no_quorum)
        assert isinstance(publish(network, path), PublishFailure)
    cut.bytes = 0
    done = publish(network, path)
    assert isinstance(done, PublishOutcome)
    assert cut.bytes < MIB
    assert content(network, done) == path.read_bytes()


def test_a_file_that_changed_meanwhile_is_what_it_is_now(
    network: MemoryNetwork, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change in the middle the new content is published, and only what is the same is reused."""
    cut = Cut(network, monkeypatch)
    cut.puts_left = 4
    with pytest.raises(KeyboardInterrupt):
        publish(network, path)
    cut.puts_left = None
    changed = bytearray(path.read_bytes())
    changed[MIB : 2 * MIB] = bytes(MIB)
    path.write_bytes(changed)
    done = publish(network, path)
    assert isinstance(done, PublishOutcome)
    assert content(network, done) == bytes(changed)


@pytest.mark.parametrize("fault", ["gone", "restart", "old", "torn", "other"])
def test_what_cannot_be_counted_on_is_stored_again(
    network: MemoryNetwork, path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Shards that are gone, daemons that restarted before the flush, a journal too old or torn, and one of another
    source: all is stored again, durably."""
    cut = Cut(network, monkeypatch)
    cut.puts_left = 4
    with pytest.raises(KeyboardInterrupt):
        publish(network, path)
    cut.bytes, cut.puts_left = 0, None
    (folder,) = left_folders(network)
    entry, stripes = Path(folder, "session.json"), Path(folder, STRIPES_NAME)
    if fault == "gone":
        for member in network.store.members()[:3]:
            network.store[member].values.clear()
    elif fault == "restart":
        for member in network.store.members()[:3]:
            network.store.restart(member)
    elif fault == "torn":
        stripes.write_bytes(b"\0\0\0\x09" + stripes.read_bytes())
    elif fault == "old":
        entry.write_text(json.dumps(json.loads(entry.read_text()) | {"started": 1}))
        assert KEPT_S > 1
    elif fault == "other":
        other = path.with_name("other")
        path.rename(other)
        path = other
    done = publish(network, path)
    assert isinstance(done, PublishOutcome)
    assert cut.bytes > 1.2 * SIZE
    assert (done.survives, done.owed) == (4, 0)
    assert content(network, done) == path.read_bytes()
    assert len(left_folders(network)) == (fault == "other")


def test_a_publish_under_way_is_left_alone(network: MemoryNetwork, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose process lives is neither read nor removed by another publish of the same path."""
    cut = Cut(network, monkeypatch)
    cut.puts_left = 4
    with pytest.raises(KeyboardInterrupt):
        publish(network, path)
    (folder,) = left_folders(network)
    from fungistor.objects.upload_journal import lock_entry

    lock = lock_entry(folder)
    try:
        cut.bytes, cut.puts_left = 0, None
        assert isinstance(publish(network, path), PublishOutcome)
        assert cut.bytes > 1.2 * SIZE
        assert left_folders(network) == [folder]
    finally:
        os.close(lock)
