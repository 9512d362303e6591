"""Writing a DAG as files: whole or not at all, and never outside OUT."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from fungistor.dag import (
    CID,
    RAW,
    Block,
    Link,
    Mtime,
    build_directory,
    build_symlink,
    dag_pb,
    import_file,
    sha256_multihash,
    unixfs,
)
from fungistor.dag.profiles import UNIXFS_V1_2025
from fungistor.dag.unixfs import DataType, UnixFS
from fungistor.dag.walk import DirEntry
from fungistor.errors import FailedError, FungiStorError, InvalidError, NotFoundError, UnavailableError
from fungistor.objects import export as exporting
from fungistor.objects.export import Exporter, checked_name
from tests.unit.objects.trees import contents, grow, imported, noise

PROFILE = UNIXFS_V1_2025


class Blocks:
    """Blocks in a dict, as a source that keeps the hints."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, bytes] = {}
        self.hints: list[int] = []
        self.fails_at: CID | None = None

    def emit(self, block: Block) -> None:
        self.blocks[block.cid.multihash] = block.data

    def get(self, cid: CID) -> bytes:
        if cid == self.fails_at:
            raise UnavailableError("its members are gone")
        if cid.multihash not in self.blocks:
            raise NotFoundError(f"no block {cid}")
        return self.blocks[cid.multihash]

    def hint(self, cids: Sequence[CID]) -> None:
        self.hints.append(len(cids))

    # making DAGs that no importer makes

    def file(self, data: bytes, mode: int | None = None, mtime: Mtime | None = None) -> Link:
        root = import_file(PROFILE, [data], self.emit, mode=mode, mtime=mtime)
        return Link(b"", root.cid, root.tsize)

    def folder(self, entries: Sequence[tuple[bytes, Link]], mode: int | None = None) -> Link:
        """A directory block with any names at all, in the order given."""
        links = [dag_pb.encode_link(link.cid.encode(), name, link.tsize) for name, link in entries]
        data = dag_pb.encode_node(links, unixfs.encode(UnixFS(DataType.DIRECTORY, mode=mode)))
        cid = CID(1, 0x70, sha256_multihash(data))
        self.emit(Block(cid, data))
        return Link(b"", cid, len(data))


@pytest.fixture
def source() -> Blocks:
    return Blocks()


def export(source: Blocks, cid: CID, out: Path, *, force: bool = False) -> int:
    """Write a DAG; how many content bytes were written."""
    counts: list[int] = []
    Exporter(source, counts.append).export(cid, str(out), force=force)
    return sum(counts)


def test_random_trees_come_back_as_they_were(tmp_path: Path, source: Blocks) -> None:
    """Files, folders, empty ones and links: what was imported is what is written, name by name."""
    for seed in range(12):
        folder = tmp_path / f"in{seed}"
        grow(folder, random.Random(seed), files=20, bytes_max=300_000)
        root = imported(folder, PROFILE, source.emit).cid
        out = tmp_path / f"out{seed}"
        written = export(source, root, out)
        assert contents(out) == contents(folder)
        assert written == sum(len(data) for data in contents(folder).values() if isinstance(data, bytes))


@pytest.mark.parametrize("kind", ["file", "symlink", "raw", "empty"])
def test_out_is_the_thing_itself(tmp_path: Path, source: Blocks, kind: str) -> None:
    """A root that is a file or a link is written as OUT, with no folder around it."""
    out = tmp_path / "out"
    match kind:
        case "file":
            export(source, source.file(noise(1, 3000), mode=0o600).cid, out)
            assert out.read_bytes() == noise(1, 3000)
        case "raw":
            source.blocks[sha256_multihash(b"raw")] = b"raw"
            export(source, CID(1, RAW, sha256_multihash(b"raw")), out)
            assert out.read_bytes() == b"raw"
        case "symlink":
            export(source, build_symlink(PROFILE, b"../anywhere", source.emit).cid, out)
            assert os.readlink(out) == "../anywhere"
        case "empty":
            export(source, source.folder([]).cid, out)
            assert os.listdir(out) == []


@pytest.mark.parametrize(
    "name", [b"..", b".", b"", b"a/b", b"/etc/passwd", b"../x", b"a\0b", b"/", b"a/../../x", b"\0"]
)
@pytest.mark.parametrize("depth", [0, 2])
def test_no_name_leads_out(tmp_path: Path, source: Blocks, name: bytes, depth: int) -> None:
    """A hostile name, at the top or deep down, ends the export; nothing is written anywhere."""
    link = source.folder([(b"good", source.file(b"fine")), (name, source.file(b"evil"))])
    for _ in range(depth):
        link = source.folder([(b"below", link)])
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(FungiStorError):
        export(source, link.cid, place / "out")
    assert contents(tmp_path) == {"place": None}


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"a\0b"])
def test_names_are_checked_before_use(name: bytes) -> None:
    """The check itself, on what could reach it through another reader; the message shows the name and the way out."""
    with pytest.raises(InvalidError, match="would not stay below the output folder") as caught:
        checked_name(DirEntry(name, CID(1, RAW, sha256_multihash(b"")), 0))
    assert "fungistor cat" in caught.value.hint


@pytest.mark.parametrize("name", [b"...", b" ", b"-rf", b"\xff\xfe", b"a\\b", "日本".encode(), b"\n", b"~", b"x" * 255])
def test_odd_names_that_are_only_odd_are_written(tmp_path: Path, source: Blocks, name: bytes) -> None:
    """What a file system takes is written as it is."""
    export(source, source.folder([(name, source.file(b"odd"))]).cid, tmp_path / "out")
    assert os.listdir(os.fsencode(tmp_path / "out")) == [name]


def test_nothing_is_written_through_a_link_of_the_dag(tmp_path: Path, source: Blocks) -> None:
    """A link and a folder of one name, in either order: nothing is ever created where the link points."""
    victim = tmp_path / "victim"
    victim.mkdir()
    link = build_symlink(PROFILE, os.fsencode(victim), source.emit)
    folder = source.folder([(b"evil", source.file(b"evil"))])
    for number, pair in enumerate(([(b"x", link), (b"x", folder)], [(b"x", folder), (b"x", link)])):
        with contextlib.suppress(InvalidError):
            export(source, source.folder(pair).cid, tmp_path / f"out{number}")
        assert os.listdir(victim) == []


def test_a_name_twice_is_never_two_files(tmp_path: Path, source: Blocks) -> None:
    """Of equal names in one folder the first counts, as every reader has it."""
    root = source.folder([(b"x", source.file(b"first")), (b"x", source.file(b"second"))])
    export(source, root.cid, tmp_path / "out")
    assert contents(tmp_path / "out") == {"x": b"first"}


def test_names_that_the_file_system_takes_for_one_are_refused(
    tmp_path: Path, source: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that folds case the second of `a` and `A` would overwrite the first: the export is refused."""
    real = os.path.lexists

    def folding(path: str | bytes) -> bool:
        return real(path) or real(os.fsencode(path).replace(b"/A", b"/a"))

    monkeypatch.setattr(os.path, "lexists", folding)
    root = source.folder([(b"a", source.file(b"1")), (b"A", source.file(b"2"))])
    with pytest.raises(InvalidError, match="two entries named 'A'"):
        export(source, root.cid, tmp_path / "out")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("broken", ["unavailable", "missing", "corrupt", "full"])
def test_a_failure_leaves_nothing(tmp_path: Path, source: Blocks, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members gone, a block missing, a malformed file or a full disk half way: OUT is not there, nor anything else."""
    last = source.file(noise(2, 5000))
    root = source.folder([(b"a", source.file(noise(1, 5000))), (b"ro", source.folder([(b"f", last)], mode=0o500)),
                          (b"z", source.file(b"last"))])  # fmt: skip
    match broken:
        case "unavailable":
            source.fails_at = last.cid
        case "missing":
            del source.blocks[last.cid.multihash]
        case "corrupt":
            bad = source.folder([(b"f", Link(b"", CID(1, 0x70, last.cid.multihash), 1))])
            root = source.folder([(b"a", source.file(b"x")), (b"b", bad)])
        case "full":

            def full(fd: int, data: bytes) -> int:
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(os, "write", full)
    with pytest.raises(FungiStorError):
        export(source, root.cid, tmp_path / "out")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


def test_what_is_there_is_refused(tmp_path: Path, source: Blocks) -> None:
    """A file, a folder or a dangling link at OUT is left as it is, unless force is given."""
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    root = source.file(b"new").cid
    for name in ("file", "folder", "link"):
        with pytest.raises(InvalidError, match="exists already"):
            export(source, root, tmp_path / name)
    assert contents(tmp_path) == {"file": b"mine", "folder": None, "link": "nowhere"}


@pytest.mark.parametrize("old", ["file", "folder", "link to file", "link to folder"])
@pytest.mark.parametrize("new", ["file", "folder"])
def test_force_replaces_whatever_is_there(tmp_path: Path, source: Blocks, old: str, new: str) -> None:
    """Any kind by any kind, a link itself and not what it points to, and nothing is left aside."""
    target, victim = tmp_path / "out", tmp_path / "victim"
    victim.mkdir()
    (victim / "f").write_bytes(b"keep")
    match old:
        case "file":
            target.write_bytes(b"old")
        case "folder":
            (target / "deep").mkdir(parents=True)
        case "link to file":
            target.symlink_to(victim / "f")
        case "link to folder":
            target.symlink_to(victim)
    file = source.file(b"new")
    root = file if new == "file" else source.folder([(b"n", file)])
    export(source, root.cid, target, force=True)
    expected: dict[str, bytes | str | None] = {"victim": None, "victim/f": b"keep"}
    expected |= {"out": b"new"} if new == "file" else {"out": None, "out/n": b"new"}
    assert contents(tmp_path) == expected


def test_force_that_fails_keeps_what_was_there(tmp_path: Path, source: Blocks) -> None:
    """The old folder stays until the new one is whole."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_bytes(b"old")
    bad = source.file(b"gone")
    root = source.folder([(b"a", source.file(b"x")), (b"b", bad)])
    source.fails_at = bad.cid
    with pytest.raises(UnavailableError):
        export(source, root.cid, tmp_path / "out", force=True)
    assert contents(tmp_path) == {"out": None, "out/old": b"old"}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, source: Blocks) -> None:
    """OUT below a folder that is not there: the failure names it."""
    with pytest.raises(FailedError, match="cannot be written: No such file or directory"):
        export(source, source.file(b"x").cid, tmp_path / "no" / "out")


def test_modes_and_times_are_restored(tmp_path: Path, source: Blocks) -> None:
    """Permission bits and times come back, on folders after their entries; set-user-id bits never do."""
    mtime = Mtime(1_600_000_000, 123_456_789)
    file = source.file(b"x", mode=0o4755, mtime=mtime)
    link = build_symlink(PROFILE, b"file", source.emit, mtime=mtime)
    root = build_directory(
        PROFILE, [Link(b"file", file.cid, 1), Link(b"link", link.cid, 1)], source.emit, mode=0o500, mtime=mtime
    )
    out = tmp_path / "out"
    export(source, root.cid, out)
    assert (out / "file").stat().st_mode & 0o7777 == 0o755
    assert out.stat().st_mode & 0o7777 == 0o500
    for path in (out, out / "file", out / "link"):
        assert path.lstat().st_mtime_ns == 1_600_000_000_123_456_789
    out.chmod(0o700)


@pytest.mark.parametrize("seconds", [-(2**62), 2**62])
def test_a_time_that_no_system_knows_is_left_out(tmp_path: Path, source: Blocks, seconds: int) -> None:
    """An absurd time neither fails the export nor crashes."""
    out = tmp_path / "out"
    export(source, source.file(b"x", mtime=Mtime(seconds)).cid, out)
    assert out.read_bytes() == b"x"


def test_runs_of_zeros_become_holes(tmp_path: Path, source: Blocks) -> None:
    """A file of zeros with data in the middle and zeros at its end is written sparse, with its full length."""
    data = bytes(4 << 20) + noise(1, 100) + bytes(5 << 20)
    chunks = [data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20)]
    root = import_file(PROFILE, chunks, source.emit)
    out = tmp_path / "out"
    assert export(source, root.cid, out) == len(data)
    assert out.read_bytes() == data
    assert out.stat().st_blocks * 512 < 3 << 20


def test_depth_is_bounded(tmp_path: Path, source: Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DAG deeper than any publish makes is refused and leaves nothing."""
    monkeypatch.setattr(exporting, "DEPTH_MAX", 5)
    link = source.folder([])
    for _ in range(4):
        link = source.folder([(b"d", link)])
    export(source, link.cid, tmp_path / "fits")
    with pytest.raises(InvalidError, match="deeper than 5 folders"):
        export(source, source.folder([(b"d", link)]).cid, tmp_path / "out")
    assert os.listdir(tmp_path) == ["fits"]


def test_entries_are_hinted_a_bounded_number_at_a_time(tmp_path: Path, source: Blocks) -> None:
    """A large folder is told to the source in pieces, each before it is read."""
    root = source.folder([(b"%04d" % n, source.file(b"%d" % n)) for n in range(600)])
    export(source, root.cid, tmp_path / "out")
    assert sum(count for count in source.hints if count > 1) == 600
    assert max(source.hints) == exporting.HINT_ENTRIES
