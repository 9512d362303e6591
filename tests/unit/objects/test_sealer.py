"""The sealing threads: each block once, errors where they are waited for, and a quick end."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fungistor.dag import PROFILES, Leaf, Profile
from fungistor.errors import FailedError, UnavailableError
from fungistor.objects.assemble import file_chunks
from fungistor.objects.scan import Attributes, File, FileState
from fungistor.objects.sealer import Batch, Chunk, ChunkReader, Sealer, ZeroLeaves, leaves_of
from fungistor.objects.session import Session
from fungistor.objects.spool import Spool, StoredBlock
from fungistor.objects.stripe_writer import StripeWriter
from tests.unit.objects.stores import store_of
from tests.unit.objects.trees import noise, write

PROFILE = PROFILES["unixfs-v1-2025"]


def file_at(path: Path) -> File:
    """A file as the walk meets it."""
    return File(b"f", FileState.of(os.fsencode(path), path.stat()), Attributes())


def batch_of(*chunks: Chunk) -> Batch:
    batch = Batch()
    for chunk in chunks:
        batch.add(chunk)
    return batch


def data_chunk(data: bytes) -> Chunk:
    return Chunk(PROFILE, len(data), data=data)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(str(tmp_path / "spool.db"))
    yield made
    made.close()


def writers(tmp_path: Path, down: int = 0) -> Callable[[], StripeWriter]:
    """Makes writers over one session and one store."""
    store = store_of(20, down=down)
    session = Session(str(tmp_path), store)
    slots = itertools.count()
    return lambda: StripeWriter(store, session, slots, lambda *_: None)


def test_equal_blocks_are_sealed_once(spool: Spool, tmp_path: Path) -> None:
    """Two threads that meet the same blocks again and again store each of them once."""
    asked: list[bytes] = []

    def look_up(some: Sequence[bytes]) -> dict[bytes, StoredBlock]:
        asked.extend(some)
        return {}

    sealer = Sealer(spool, look_up, writers(tmp_path), 2)
    blocks = [noise(number, 1000) for number in range(20)]
    futures = [sealer.submit(batch_of(*map(data_chunk, blocks))) for _ in range(10)]
    leaves = [future.result() for future in futures]
    sealer.close()
    assert all(each == leaves[0] for each in leaves)
    assert len(asked) == len(set(asked)) == 20
    assert spool.blocks_count() == 20
    places = [spool.block(mh) for mh in asked]
    assert len({(place.slot, place.number) for place in places if place is not None}) == 20


def test_known_blocks_are_not_written(spool: Spool, tmp_path: Path) -> None:
    """What the tenant stores already takes no room in a stripe."""
    known = StoredBlock(0, 7, 1000, 0, bytes(32))
    sealer = Sealer(spool, lambda some: dict.fromkeys(some, known), writers(tmp_path, down=20), 2)
    [leaf] = sealer.submit(batch_of(data_chunk(noise(1, 1000)))).result()
    sealer.close()
    assert spool.block(leaf.cid.multihash) == known


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_reaches_whoever_waits(spool: Spool, tmp_path: Path, threads: int) -> None:
    """The batch that fails raises its reason; every batch after it raises a reason, too, and never hangs."""
    sealer = Sealer(spool, lambda _: {}, writers(tmp_path, down=18), threads)
    futures = [sealer.submit(batch_of(data_chunk(noise(number, 1 << 20)))) for number in range(20)]
    errors = [future.exception(timeout=20) for future in futures]
    assert all(error is None or isinstance(error, UnavailableError) for error in errors)
    assert isinstance(errors[-1], UnavailableError)
    with pytest.raises(UnavailableError, match="2 of 20 members answer"):
        sealer.close()


def test_an_error_in_the_last_stripe_comes_at_the_close(spool: Spool, tmp_path: Path) -> None:
    """Leaves are there before their stripe is sent; that it could not be sent is told at the end."""
    sealer = Sealer(spool, lambda _: {}, writers(tmp_path, down=18), 1)
    assert sealer.submit(batch_of(data_chunk(b"x"))).result()
    with pytest.raises(UnavailableError):
        sealer.close()


def test_cancel_drops_what_was_not_begun(spool: Spool, tmp_path: Path) -> None:
    """Cancelled while a batch is under way, that one is finished, none after it is begun, and the threads end."""
    begun, go_on = threading.Event(), threading.Event()

    def look_up(some: Sequence[bytes]) -> dict[bytes, StoredBlock]:
        begun.set()
        assert go_on.wait(10)
        return dict.fromkeys(some, StoredBlock(0, 0, 1, 0, bytes(32)))

    sealer = Sealer(spool, look_up, writers(tmp_path), 1)
    futures = [sealer.submit(batch_of(data_chunk(b"%d" % number))) for number in range(5)]
    assert begun.wait(10)
    canceller = threading.Thread(target=sealer.cancel)
    canceller.start()
    while not sealer._cancelled.is_set():
        assert canceller.is_alive()
    go_on.set()
    canceller.join(10)
    assert not canceller.is_alive()
    assert futures[0].result()
    for future in futures[1:]:
        with pytest.raises(FailedError, match="given up"):
            future.result()
    assert spool.blocks_count() == 1


def read_all(path: Path, met: File | None = None) -> bytes:
    """Read a file as the sealer does."""
    reader = ChunkReader()
    try:
        return b"".join(bytes(reader.read(chunk)) for chunk in file_chunks(met or file_at(path), PROFILE))
    finally:
        reader.close()


@pytest.mark.parametrize("length", [0, 1, (1 << 20) - 1, 1 << 20, (5 << 20) + 3])
def test_a_quiet_file_is_read_whole(tree: Path, length: int) -> None:
    """At every edge of a chunk the bytes are those of the file."""
    data = noise(length, length)
    assert read_all(write(tree, "f", data)) == data


@pytest.mark.parametrize("change", ["grow", "shrink", "touch", "replace"])
def test_a_file_that_changed_since_it_was_met_is_refused(tree: Path, change: str) -> None:
    """Longer, shorter, written to or another file: nothing of it is taken."""
    path = write(tree, "f", noise(1, 3000))
    met = file_at(path)
    match change:
        case "grow":
            path.write_bytes(noise(1, 3001))
        case "shrink":
            path.write_bytes(noise(1, 2999))
        case "touch":
            os.utime(path, ns=(0, met.state.mtime_ns + 1))
        case "replace":
            twin = write(tree, "g", noise(1, 3000))
            os.utime(twin, ns=(0, met.state.mtime_ns))
            twin.replace(path)
    with pytest.raises(FailedError, match="f: changed while it was read"):
        read_all(path, met)


def test_a_file_that_changes_between_its_chunks_is_refused(tree: Path) -> None:
    """What changed after its first chunk was read is noticed at the last one."""
    path = write(tree, "f", noise(1, 3 << 20))
    reader = ChunkReader()
    chunks = list(file_chunks(file_at(path), PROFILE))
    reader.read(chunks[0])
    path.write_bytes(noise(2, 3 << 20))
    reader.read(chunks[1])
    with pytest.raises(FailedError, match="changed while it was read"):
        reader.read(chunks[2])
    reader.close()


@pytest.mark.parametrize("became", ["nothing", "link", "pipe", "folder"])
def test_a_file_that_became_something_else_neither_hangs_nor_leads_astray(tree: Path, became: str) -> None:
    """Gone, a link, a pipe or a folder in its place: it cannot be read, and no link is followed."""
    path = write(tree, "f", noise(1, 3000))
    other = write(tree, "other", noise(1, 3000))
    met = file_at(path)
    path.unlink()
    match became:
        case "link":
            path.symlink_to(other)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    with pytest.raises(FailedError, match=r"f: (cannot be read|changed)"):
        read_all(path, met)


MIB = 1 << 20


def sparse(path: Path, size: int, *data: tuple[int, bytes]) -> Path:
    """A file of holes with some data at offsets."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, some in data:
            file.seek(offset)
            file.write(some)
    return path


class CountingReader(ChunkReader):
    """Knows which chunks it had to read."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets: list[int] = []

    def read(self, chunk: Chunk) -> memoryview:
        self.offsets.append(chunk.offset)
        return super().read(chunk)


def leaves_and_blocks(path: Path, profile: Profile, zeros: ZeroLeaves | None) -> tuple[list[Leaf], dict[bytes, bytes]]:
    blocks: dict[bytes, bytes] = {}
    with contextlib.closing(ChunkReader()) as reader:
        batch = batch_of(*file_chunks(file_at(path), profile))
        leaves = leaves_of(batch, reader, lambda mh, block: blocks.update({mh: bytes(block)}), zeros)
    return leaves, blocks


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
@pytest.mark.parametrize(
    "data",
    [[], [(0, b"x")], [(5 * MIB + 76, b"y")], [(MIB - 1, b"edge"), (4 * MIB, bytes(MIB))], [(2 * MIB, noise(3, MIB))]],
    ids=["none", "first", "last", "edges", "middle"],
)
def test_holes_give_the_leaves_of_zeros(tree: Path, profile: Profile, data: list[tuple[int, bytes]]) -> None:
    """Wherever the data of a sparse file lies, leaves and blocks are those of reading it all."""
    path = sparse(tree / "f", 5 * MIB + 77, *data)
    assert leaves_and_blocks(path, profile, ZeroLeaves()) == leaves_and_blocks(path, profile, None)


def test_holes_are_not_read(tree: Path) -> None:
    """Of a file of 2 GiB the chunks with data are read alone."""
    path = sparse(tree / "f", 2 << 30, (1000 * MIB + 5, b"data"), (1500 * MIB, b"more"))
    kept: list[bytes] = []
    with contextlib.closing(CountingReader()) as reader:
        chunks = list(file_chunks(file_at(path), PROFILE))
        leaves = leaves_of(batch_of(*chunks), reader, lambda mh, _: kept.append(mh), ZeroLeaves())
    assert reader.offsets == [1000 * MIB, 1500 * MIB]
    assert (len(leaves), len(kept), len({leaf.cid for leaf in leaves})) == (2048, 3, 3)


@pytest.mark.parametrize("change", ["fill", "grow", "shrink"])
def test_a_hole_that_changes_is_refused(tree: Path, change: str) -> None:
    """Data that comes into a hole after it was passed, or another length, is noticed at the file's end."""
    path = sparse(tree / "f", 64 * MIB)
    chunks = list(file_chunks(file_at(path), PROFILE))
    with contextlib.closing(ChunkReader()) as reader:
        assert reader.is_hole(chunks[0])
        match change:
            case "fill":
                with path.open("r+b") as file:
                    file.write(b"x")
            case "grow":
                os.truncate(path, 65 * MIB)
            case "shrink":
                os.truncate(path, 63 * MIB)
        with pytest.raises(FailedError, match="f: changed while it was read"):
            leaves_of(batch_of(*chunks[1:]), reader, lambda *_: None, ZeroLeaves())
