"""From walk to root: the same CIDs as the pure importer, and a bounded run ahead."""

from __future__ import annotations

import io
import os
import random
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fungistor.dag import DAG_PB, PROFILES, Block, Leaf, Mtime, import_file
from fungistor.dag.profiles import Profile
from fungistor.errors import FailedError
from fungistor.objects import assemble
from fungistor.objects.assemble import Assembled, Assembler, LookAhead
from fungistor.objects.scan import ScanRules, scan
from fungistor.objects.sealer import BATCH_BYTES, BATCH_CHUNKS_MAX, Batch, ChunkReader, leaves_of
from tests.unit.objects.trees import grow, imported, noise, write


class Hashing:
    """Does batches when their leaves are asked for, and counts how far it was run ahead of."""

    def __init__(self) -> None:
        self.reader = ChunkReader()
        self.blocks: dict[bytes, bytes] = {}
        self.submitted = 0
        self.done = 0
        self.ahead_max = 0
        self.batch_bytes_max = 0

    def submit(self, batch: Batch) -> Future[list[Leaf]]:
        self.submitted += 1
        self.batch_bytes_max = max(self.batch_bytes_max, batch.bytes)
        assert len(batch.chunks) <= BATCH_CHUNKS_MAX
        self.ahead_max = max(self.ahead_max, self.submitted - self.done)
        hashing = self

        class Late(Future[list[Leaf]]):
            def result(self, timeout: float | None = None) -> list[Leaf]:
                hashing.done += 1
                return leaves_of(batch, hashing.reader, lambda mh, data: hashing.blocks.update({mh: bytes(data)}))

        return Late()

    def emit(self, block: Block) -> None:
        self.blocks[block.cid.multihash] = block.data


def assembled(path: Path, profile: Profile, rules: ScanRules | None = None) -> tuple[Assembled, Hashing]:
    """Read a path."""
    hashing = Hashing()
    walk = scan(os.fsencode(path), rules or ScanRules(hidden=True))
    made = Assembler(profile, hashing.emit, lambda _: None).run(LookAhead(walk, profile, hashing.submit))
    hashing.reader.close()
    return made, hashing


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), profile=st.sampled_from(sorted(PROFILES)))
def test_random_trees_have_the_importers_root(
    tmp_path_factory: pytest.TempPathFactory, seed: int, profile: str
) -> None:
    """Root, size and every block equal what the pure importer makes of the same folder."""
    folder = tmp_path_factory.mktemp("tree")
    grow(folder, random.Random(seed), files=seed % 24, bytes_max=600_000)
    blocks: dict[bytes, bytes] = {}
    expected = imported(folder, PROFILES[profile], lambda block: blocks.update({block.cid.multihash: block.data}))
    made, hashing = assembled(folder, PROFILES[profile])
    assert (made.root, made.tsize) == (expected.cid, expected.tsize)
    assert made.size == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    assert hashing.blocks == blocks


@pytest.mark.parametrize("length", [0, 1, 262143, 262144, 262145, 3 * 262144])
@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_streams_root_is_that_of_the_file(tree: Path, profile: str, length: int) -> None:
    """Bytes from a pipe get the CID that a file of the same bytes gets, at every edge of a chunk."""
    data = noise(length, length)
    expected = imported(write(tree, "f", data), PROFILES[profile])
    hashing = Hashing()
    made = Assembler(PROFILES[profile], hashing.emit, lambda _: None).run_stream(io.BytesIO(data), hashing.submit)
    assert (made.root, made.size) == (expected.cid, length)


@pytest.mark.parametrize("length", [0, 100, 1 << 20, (1 << 20) + 1])
def test_attributes_make_the_root_that_the_importer_makes(tree: Path, length: int) -> None:
    """A file with mode and time has its attributes in its root, be that a leaf or not."""
    path = write(tree, "f", noise(1, length))
    path.chmod(0o604)
    os.utime(path, ns=(0, 1_700_000_000_000_000_005))
    profile = PROFILES["unixfs-v1-2025"]
    data = path.read_bytes()
    chunks = [data[at : at + profile.chunk_bytes] for at in range(0, length, profile.chunk_bytes)]
    expected = import_file(profile, chunks, lambda _: None, mode=0o604, mtime=Mtime(1_700_000_000, 5))
    made, _ = assembled(path, profile, ScanRules(preserve_mode=True, preserve_mtime=True))
    assert made.root == expected.cid
    assert made.root.codec == DAG_PB


def test_the_run_ahead_is_bounded_in_bytes(tree: Path) -> None:
    """However large a file, few batches are out and none is much larger than its target."""
    with (tree / "large").open("wb") as file:
        file.truncate(20 * assemble.BATCHES_AHEAD * BATCH_BYTES // 10)
    _, hashing = assembled(tree, PROFILES["kubo-cidv1"])
    assert hashing.submitted > assemble.BATCHES_AHEAD + 2
    assert hashing.ahead_max <= assemble.BATCHES_AHEAD + 1
    assert hashing.batch_bytes_max < BATCH_BYTES + (1 << 20)


def test_the_run_ahead_is_bounded_in_entries(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries without bytes run ahead no further than their own bound, and the order still holds."""
    monkeypatch.setattr(assemble, "EVENTS_AHEAD_MAX", 16)
    for number in range(200):
        (tree / f"{number:03}").mkdir()
        if number % 7 == 0:
            write(tree, f"{number:03}/file", noise(number, number))
    read: list[int] = []
    walk = scan(os.fsencode(tree), ScanRules())

    def counted() -> object:
        for number, event in enumerate(walk):
            read.append(number)
            yield event

    profile = PROFILES["unixfs-v1-2025"]
    hashing = Hashing()
    ahead = LookAhead(counted(), profile, hashing.submit)  # type: ignore[arg-type]  # a generator of events
    taken = 0
    made = Assembler(profile, hashing.emit, lambda _: None)
    original = ahead.event

    def event() -> object:
        nonlocal taken
        taken += 1
        got = original()
        assert len(read) - taken <= 16
        return got

    monkeypatch.setattr(ahead, "event", event)
    assert made.run(ahead).root == imported(tree, profile).cid


def test_nothing_to_publish_is_an_error() -> None:
    """An empty walk has no root."""
    profile = PROFILES["unixfs-v1-2025"]
    hashing = Hashing()
    with pytest.raises(FailedError, match="nothing to publish"):
        Assembler(profile, hashing.emit, lambda _: None).run(LookAhead([], profile, hashing.submit))


def test_a_stream_that_breaks_is_told() -> None:
    """An error of the standard input is a failure of this machine, with its reason."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    hashing = Hashing()
    made = Assembler(PROFILES["kubo-cidv1"], hashing.emit, lambda _: None)
    with pytest.raises(FailedError, match="standard input cannot be read: Input/output error"):
        made.run_stream(Broken(), hashing.submit)
