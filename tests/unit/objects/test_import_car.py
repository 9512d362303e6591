"""CAR files become objects and come back; what is wrong with one is named, and then nothing of it is stored."""

from __future__ import annotations

import contextlib
import io
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fungistor.dag import CID, DAG_CBOR, DAG_JSON, DAG_PB, RAW, describe, encode_leaf, entries, read_file, varint
from fungistor.dag.links import links
from fungistor.dag.profiles import UNIXFS_V0_2015, UNIXFS_V1_2025
from fungistor.errors import FailedError, FungiStorError, InvalidError, NotFoundError, UnavailableError
from fungistor.objects import pending as pendings
from fungistor.objects.car_index import CarIndex, Place
from fungistor.objects.car_walk import Walker, survey
from fungistor.objects.export import Exporter
from fungistor.objects.export_car import CarExporter, dag_blocks
from fungistor.objects.import_car import IMPORTED, CarImporter
from fungistor.objects.pending import Pending
from fungistor.objects.results import CarRoot, PublishOptions
from fungistor.testing.memory_network import MemoryNetwork, members
from tests.unit.objects.cars import Dag, car, cbor_list, cid_of, identity
from tests.unit.objects.trees import contents, grow, noise

FOUND = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def load(network: MemoryNetwork, *paths: str, partial: bool = False) -> list[CarRoot]:
    """Import files, and index what came of them root by root."""
    roots = []
    for root in CarImporter(network.ports(), network.content.find).run(paths, partial=partial):
        roots.append(root)
        network.content.catch_up_index()
    return roots


def unload(network: MemoryNetwork, cid: CID, out: Path, *, force: bool = False) -> bytes:
    """Export a DAG."""
    with network.content.open(cid) as source:
        CarExporter(source, lambda _: None).export(cid, str(out), force=force)
    return out.read_bytes()


def text(network: MemoryNetwork, cid: CID, *names: str) -> bytes:
    return b"".join(network.read(cid, *names))


def assert_untouched(network: MemoryNetwork) -> None:
    """Nothing was committed, nothing is on members, nothing is left of the run."""
    assert list(network.catalog.records()) == []
    assert all(not member.values for member in network.store.all.values())
    assert not os.path.isdir(network.journal) or os.listdir(network.journal) == []


@pytest.fixture
def other(tmp_path: Path) -> Iterator[MemoryNetwork]:
    """A second network, with keys of its own."""
    folder = tmp_path / "other"
    folder.mkdir()
    with MemoryNetwork(str(folder), members(20)) as made:
        yield made


@pytest.mark.parametrize("profile", ["unixfs-v1-2025", "unixfs-v0-2015", "kubo-cidv1"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_published_tree_goes_by_car_to_another_network(
    network: MemoryNetwork, other: MemoryNetwork, tmp_path: Path, profile: str, seed: int
) -> None:
    """Same CID, content, size and count of blocks there; and exported from there the same file, byte for byte."""
    tree = tmp_path / "in"
    grow(tree, random.Random(seed), files=40, bytes_max=400_000)
    outcome = network.publish(str(tree), PublishOptions(profile=profile))
    root = CID.parse(outcome.cid)
    data = unload(network, root, tmp_path / "tree.car")
    [loaded] = load(other, str(tmp_path / "tree.car"))
    assert (loaded.cid, loaded.size, loaded.missing, loaded.left_out) == (outcome.cid, outcome.size, 0, 0)
    assert (loaded.name, loaded.survives) == ("tree", 4)
    record = other.record(root)
    assert record.sizes.blocks == network.record(root).sizes.blocks == loaded.blocks
    assert record.profile == IMPORTED
    with other.content.open(root) as source:
        Exporter(source, lambda _: None).export(root, str(tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(tree)
    assert unload(other, root, tmp_path / "again.car") == data
    assert other.verify(root).missing == 0


def test_an_export_is_depth_first_without_repeats(network: MemoryNetwork, tmp_path: Path) -> None:
    """The order is that of a plain recursive walk which writes each block at its first link."""
    tree = tmp_path / "in"
    grow(tree, random.Random(3), files=60, bytes_max=600_000)
    root = CID.parse(network.publish(str(tree), PublishOptions(profile="kubo-cidv1")).cid)
    expected: list[CID] = []
    with network.content.open(root) as source:

        def visit(cid: CID) -> None:
            if cid not in expected:
                expected.append(cid)
                for child in links(cid, source.get(cid)):
                    visit(child)

        visit(root)
    network.forget()
    with network.content.open(root) as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pendings, "CHUNK_ITEMS", 2)
        assert [cid for cid, _ in dag_blocks(source, root)] == expected


def test_codecs_of_every_kind_below_each_other(network: MemoryNetwork, tmp_path: Path) -> None:
    """dag-cbor over dag-json over dag-pb over raw, CIDv0 links below CIDv1, identity CIDs with links: all come back."""
    dag = Dag()
    file0 = dag.file([noise(1, 200_000), noise(2, 200_000)], version=0)
    folder0 = dag.folder([(b"f", file0), (b"tiny", identity(b"in the CID"))], version=0)
    json = dag.put(b'{"l":{"/":"%s"},"n":[1,{"/":{"bytes":"AA"}}]}' % str(folder0).encode(), DAG_JSON)
    inside = identity(cbor_list([json]), DAG_CBOR)
    git = dag.put(b"of a codec that nobody knows", 0x78)
    root = dag.list([inside, git, json, identity(b"x")])
    [loaded] = load(network, dag.write(tmp_path / "all.car", root))
    assert (loaded.blocks, loaded.bytes, loaded.missing) == (7, sum(map(len, dag.blocks.values())), 0)
    assert loaded.size == loaded.bytes
    network.forget()
    with network.content.open(root) as source:
        assert source.get(root) == dag.blocks[root]
        assert [source.get(cid) for cid in dag.blocks] == list(dag.blocks.values())
        assert dict(dag_blocks(source, root)) == dag.blocks
    assert text(network, folder0, "f") == noise(1, 200_000) + noise(2, 200_000)
    assert text(network, folder0, "tiny") == b"in the CID"
    for cid in dag.blocks:
        assert network.content.find(cid) == dag.blocks[cid]


def test_blocks_are_found_by_hash_whatever_codec_the_file_says(network: MemoryNetwork, tmp_path: Path) -> None:
    """Stores that keep blocks by hash export them all as raw: links lead on all the same, and v0 meets v1."""
    dag = Dag()
    root = dag.folder([(b"f", dag.file([noise(1, 60_000), noise(2, 60_000)])), (b"r", dag.put(noise(3, 60_000)))])
    path = tmp_path / "raw.car"
    path.write_bytes(car([root], [(CID(1, RAW, cid.multihash), data) for cid, data in dag.blocks.items()]))
    [loaded] = load(network, str(path))
    assert loaded.blocks == len(dag.blocks)
    network.forget()
    assert text(network, root, "f") == noise(1, 60_000) + noise(2, 60_000)
    assert text(network, CID(0, DAG_PB, root.multihash), "r") == noise(3, 60_000)


def test_a_block_linked_as_itself_and_as_raw(network: MemoryNetwork, tmp_path: Path) -> None:
    """One block under two codecs is read by both: as bytes, and as what leads on to what is below."""
    dag = Dag()
    inner = dag.file([noise(1, 30_000), noise(2, 30_000)])
    as_raw = CID(1, RAW, inner.multihash)
    for number, order in enumerate(([as_raw, inner], [inner, as_raw])):
        root = dag.list(order)
        load(network, dag.write(tmp_path / f"{number}.car", root))
        network.forget()
        with network.content.open(root) as source:
            assert source.get(as_raw) == dag.blocks[inner]
            assert b"".join(read_file(source, inner)) == noise(1, 30_000) + noise(2, 30_000)
            assert len(list(dag_blocks(source, root))) == 5


def test_roots_share_blocks(network: MemoryNetwork, tmp_path: Path) -> None:
    """Three roots, one inside another and one said twice: three objects, their common blocks stored once."""
    dag = Dag()
    file = dag.file([noise(number, 250_000) for number in range(8)])
    folder = dag.folder([(b"f", file)])
    second = dag.folder([(b"g", file), (b"h", dag.put(b"more"))])
    path = dag.write(tmp_path / "three.car", folder, file, second, file)
    first, *others = load(network, path)
    assert [root.cid for root in (first, *others)] == [str(folder), str(file), str(second)]
    assert first.new > 2_000_000
    assert all(root.new < 100_000 for root in others)
    assert [root.size for root in (first, *others)] == [2_000_000, 2_000_000, 2_000_004]
    network.forget()
    for root in (file, folder, second):
        assert network.verify(root).missing == 0
    assert text(network, second, "g") == text(network, file)


def test_files_are_imported_together(network: MemoryNetwork, tmp_path: Path) -> None:
    """A DAG spread over two files is whole; each alone is refused."""
    dag, rest = Dag(), Dag()
    part = rest.put(noise(1, 100_000))
    root = dag.folder([(b"a", part), (b"b", dag.put(b"b"))])
    one, two = dag.write(tmp_path / "1.car", root), rest.write(tmp_path / "2.car", root)
    for alone in (one, two):
        with pytest.raises(InvalidError):
            load(network, alone)
    assert_untouched(network)
    [loaded] = load(network, two, one)
    assert loaded.blocks == 3
    assert text(network, root, "a") == noise(1, 100_000)


def test_what_no_root_reaches_is_left_out(network: MemoryNetwork, tmp_path: Path) -> None:
    """Stray blocks are counted and not stored."""
    dag = Dag()
    root = dag.folder([(b"a", dag.put(noise(1, 50_000)))])
    for number in range(5):
        dag.put(noise(100 + number, 1_000_000))
    [loaded] = load(network, dag.write(tmp_path / "f.car", root))
    assert (loaded.blocks, loaded.left_out) == (2, 5)
    assert loaded.stored < 200_000
    assert network.content.find(cid_of(noise(100, 1_000_000))) is None


def hostile_cars() -> Iterator[tuple[str, bytes, str]]:
    dag = Dag()
    leaf = dag.put(noise(1, 50_000))
    root = dag.folder([(b"a", leaf), (b"b", dag.put(b"b"))])
    good = dag.car(root)
    lie = car([root], [(cid, data if cid != leaf else data[:-1] + b"?") for cid, data in dag.blocks.items()])
    yield "flipped block", lie, f"block {leaf} at byte 98 does not match its hash"
    yield "identity that lies", good + car([], [(identity(b"a"), b"b")])[len(car([], [])) :], "does not match its hash"
    unknown = CID(1, RAW, varint.encode(0x1011) + b"\x20" + bytes(32))
    yield "unknown hash", good + car([], [(unknown, b"")])[len(car([], [])) :], "hash function 0x1011 is not supported"
    short = CID(1, RAW, b"\x13\x04" + bytes(4))
    yield "short digest", good + car([], [(short, b"")])[len(car([], [])) :], "a digest of 4 bytes"
    yield "truncated", good[:-1], f"ends at byte {len(good) - 1}, in the middle of the section"
    yield "no header", b"", "the CAR is empty"
    yield "version 2", bytes.fromhex("0aa16776657273696f6e02") + bytes(40), "a CAR of version 2"
    yield "no roots", dag.car(), "names no roots"
    yield "root not there", dag.car(root, without=[root]), f"the root {root} is not among the blocks"
    yield "leaf missing", dag.car(root, without=[leaf]), f"1 block is linked to and missing: {leaf}"
    many = Dag()
    gone = [cid_of(b"%d" % number) for number in range(30)]
    yield "many missing", many.car(many.folder([(b"x", cid) for cid in gone])), f"{gone[9]} and 20 more"
    for codec, data in ((DAG_PB, b"\x12\x05"), (DAG_CBOR, b"\xff"), (DAG_JSON, b"{")):
        bad = Dag()
        yield f"bad {codec:x}", bad.car(bad.list([bad.put(data, codec)])), f"is not what its codec 0x{codec:x} says"
    yield "text", b"hello, I am no CAR at all, though I am long enough" * 4, "no CAR file"
    yield "bomb", good + varint.encode(1 << 50), "announces 1125899906842624 bytes"


@pytest.mark.parametrize(("data", "words"), [pytest.param(d, w, id=n) for n, d, w in hostile_cars()])
def test_a_hostile_car_is_refused_and_nothing_of_it_is_stored(
    network: MemoryNetwork, tmp_path: Path, data: bytes, words: str
) -> None:
    """The message names file and fault; beside a good file, too, nothing is committed, sent or left behind."""
    path = tmp_path / "hostile.car"
    path.write_bytes(data)
    dag = Dag()
    good = dag.write(tmp_path / "good.car", dag.put(noise(9, 100_000)))
    for paths in ([str(path)], [good, str(path)]):
        with pytest.raises(InvalidError) as caught:
            load(network, *paths)
        assert words in caught.value.message
    assert_untouched(network)


@FOUND
@given(data=st.binary(max_size=400), seed=st.integers(0, 2**32))
def test_no_file_crashes_the_import(network: MemoryNetwork, tmp_path: Path, data: bytes, seed: int) -> None:
    """Any bytes, and good CARs with damaged bytes, are imported or refused in our own words."""
    chance = random.Random(seed)
    dag = Dag()
    made = [dag.put(chance.randbytes(chance.randrange(60))) for _ in range(4)]
    for _ in range(3):
        made.append(dag.list(chance.choices(made, k=3)))
    damaged = bytearray(dag.car(made[-1], made[-2]))
    for _ in range(chance.randrange(3)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    for whole in (data, bytes(damaged)):
        (tmp_path / "f.car").write_bytes(whole)
        for partial in (False, True):
            with contextlib.suppress(InvalidError):
                load(network, str(tmp_path / "f.car"), partial=partial)
    assert os.listdir(network.journal) == []


# partial DAGs


class Partial:
    """A file of four parts of which one is not in the CAR, in a folder with another that is gone whole."""

    def __init__(self, tmp_path: Path) -> None:
        self.dag = Dag()
        self.parts = [noise(number, 100_000) for number in range(4)]
        self.file = self.dag.file(self.parts)
        self.gone = self.dag.file([noise(9, 1000)])
        self.root = self.dag.folder([(b"f", self.file), (b"g", self.gone)])
        self.lost = cid_of(self.parts[1])
        self.without = [self.lost, self.gone, cid_of(noise(9, 1000))]
        self.path = self.dag.write(tmp_path / "partial.car", self.root, without=self.without)
        self.whole = self.dag.write(tmp_path / "whole.car", self.root)


@pytest.fixture
def half(tmp_path: Path) -> Partial:
    return Partial(tmp_path)


def test_a_partial_dag_is_read_where_it_is(network: MemoryNetwork, half: Partial) -> None:
    """With --partial what is there is read, ranges too; what is not is named as missing, and not found by its CID."""
    [loaded] = load(network, half.path, partial=True)
    assert (loaded.blocks, loaded.missing, loaded.size) == (5, 2, 400_000)
    network.forget()
    with network.content.open(half.root) as source:
        assert [entry.name for entry in entries(source, half.root)] == [b"f", b"g"]
        assert b"".join(read_file(source, half.file, 0, 100_000)) == half.parts[0]
        assert b"".join(read_file(source, half.file, 250_000, 400_000)) == b"".join(half.parts)[250_000:]
        for broken in (lambda: list(read_file(source, half.file)), lambda: [describe(source, half.gone)]):
            with pytest.raises(NotFoundError, match="is missing: its object was imported without it"):
                broken()
    for cid in half.without:
        assert network.content.find(cid) is None
        with pytest.raises(NotFoundError, match="is not stored in this network"):
            network.content.open(cid)
    assert network.verify(half.root).missing == 0


def test_a_partial_dag_can_be_completed(network: MemoryNetwork, half: Partial) -> None:
    """The whole CAR replaces the partial object, whose blocks it reuses; a later partial one takes nothing away."""
    load(network, half.path, partial=True)
    [whole] = load(network, half.whole)
    assert (whole.missing, whole.blocks) == (0, 8)
    assert whole.new < 400_000
    [again] = load(network, half.path, partial=True)
    assert (again.missing, again.blocks, again.new) == (0, 8, 0)
    network.forget()
    assert text(network, half.root, "f") == b"".join(half.parts)
    assert text(network, half.root, "g") == noise(9, 1000)
    assert len(list(network.catalog.records())) == 1


def test_an_absent_block_never_hides_one_that_is_there(network: MemoryNetwork, half: Partial, tmp_path: Path) -> None:
    """The missing part, imported by itself before the partial DAG, is found in it; imported after it, by its CID."""
    load(network, half.path, partial=True)
    dag = Dag()
    load(network, dag.write(tmp_path / "part.car", dag.put(half.parts[1])))
    network.forget()
    assert text(network, half.lost) == half.parts[1]
    [again] = load(network, half.path, partial=True)
    assert (again.missing, again.blocks) == (1, 6)
    assert text(network, half.root, "f") == b"".join(half.parts)


def test_a_publish_completes_a_partial_import(network: MemoryNetwork, tmp_path: Path) -> None:
    """Publishing the content of an object that lacks a block that another object has makes it whole."""
    tree = tmp_path / "in"
    tree.mkdir()
    (tree / "a").write_bytes(noise(1, 50_000))
    (tree / "b").write_bytes(noise(2, 50_000))
    dag = Dag()
    root = dag.folder([(b"a", cid_of(noise(1, 50_000))), (b"b", dag.put(noise(2, 50_000)))])
    load(network, dag.write(tmp_path / "p.car", root), partial=True)
    load(network, Dag({cid_of(noise(1, 50_000)): noise(1, 50_000)}).write(tmp_path / "a.car", cid_of(noise(1, 50_000))))
    with pytest.raises(NotFoundError):
        text(network, root, "a")
    links_with_sizes = network.publish(str(tree))
    # The same folder but for the sizes in its links, so another CID: it shows that blocks of partial objects are used.
    assert links_with_sizes.new < 100_000
    assert text(network, CID.parse(links_with_sizes.cid), "a") == noise(1, 50_000)


# sizes and shapes


def test_sizes_are_those_of_the_files(network: MemoryNetwork, tmp_path: Path) -> None:
    """Shared folders count as often as they are linked, v0 leaves and symbolic links as UnixFS says."""
    dag = Dag()
    _, leaf = encode_leaf(UNIXFS_V0_2015, b"twelve bytes")
    small = dag.put(bytes(leaf), DAG_PB, 0)
    inner = dag.folder([(b"s", small), (b"l", dag.symlink(b"s")), (b"i", identity(b"abc"))])
    middle = dag.folder([(b"1", inner), (b"2", inner)])
    root = dag.folder([(b"m", middle), (b"n", inner), (b"f", dag.file([b"x" * 70, b"y" * 30])), (b"e", dag.folder([]))])
    cbor = dag.list([root])
    bad = dag.put(b"\x0a\x01\x07", DAG_PB)
    sizes = {}
    for loaded in load(network, dag.write(tmp_path / "f.car", root, inner, small, cbor, bad)):
        sizes[loaded.cid] = loaded.size
    bytes_of_all = sum(len(data) for cid, data in dag.blocks.items() if cid != bad)
    assert sizes == {str(root): 3 * 15 + 100, str(inner): 15, str(small): 12, str(cbor): bytes_of_all, str(bad): 3}


def test_a_dag_that_speaks_of_more_bytes_than_there_are(network: MemoryNetwork, tmp_path: Path) -> None:
    """Folders that double a hundred times cost a hundred blocks; the size stops at 2^63 - 1."""
    dag = Dag()
    cid = dag.put(b"spore")
    for _ in range(100):
        cid = dag.folder([(b"a", cid), (b"b", cid)])
    [loaded] = load(network, dag.write(tmp_path / "f.car", cid))
    assert (loaded.blocks, loaded.size) == (101, 2**63 - 1)
    with network.content.open(cid) as source:
        assert len(list(dag_blocks(source, cid))) == 101


def test_a_chain_of_thousands_is_no_matter_of_depth(network: MemoryNetwork, tmp_path: Path) -> None:
    """5,000 nodes below each other are imported and exported in the right order."""
    dag = Dag()
    cid = dag.put(b"\xf6", DAG_CBOR)
    for _ in range(5_000):
        cid = dag.list([cid])
    path = tmp_path / "chain.car"
    [loaded] = load(network, dag.write(path, cid))
    assert loaded.blocks == 5_001
    with network.content.open(cid) as source:
        assert [each for each, _ in dag_blocks(source, cid)] == list(reversed(dag.blocks))


def test_one_link_said_often_is_read_once(
    network: MemoryNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that links 20,000 times to one leaf costs one read of it when checked, and one when stored."""
    reads: list[bytes] = []
    real = CarIndex.read_into

    def counted(index: CarIndex, place: Place, view: memoryview, cid: CID | None = None) -> None:
        reads.append(place.multihash)
        real(index, place, view, cid)

    monkeypatch.setattr(CarIndex, "read_into", counted)
    dag = Dag()
    leaf = dag.put(noise(1, 1000))
    root = dag.folder([(b"%d" % number, leaf) for number in range(20_000)])
    [loaded] = load(network, dag.write(tmp_path / "f.car", root))
    assert (loaded.blocks, loaded.size) == (2, 20_000_000)
    assert reads.count(leaf.multihash) == 1


def test_an_object_without_blocks(network: MemoryNetwork, tmp_path: Path) -> None:
    """A root that stands in its CID is an object of no blocks, and is read."""
    root = identity(b"all of it")
    path = tmp_path / "f.car"
    path.write_bytes(car([root], []))
    [loaded] = load(network, str(path))
    assert (loaded.blocks, loaded.bytes, loaded.size) == (0, 0, 9)
    assert text(network, root) == b"all of it"
    assert unload(network, root, tmp_path / "out.car") == car([root], [])


# names, places, failures


def test_a_name_that_people_gave_stays(network: MemoryNetwork, tmp_path: Path) -> None:
    """An object that was published keeps its name when its DAG is imported, and nothing of it is stored again."""
    (tmp_path / "letter").write_bytes(noise(1, 3_000_000))
    outcome = network.publish(str(tmp_path / "letter"), PublishOptions(name="a letter"))
    root = CID.parse(outcome.cid)
    unload(network, root, tmp_path / "f.car")
    [loaded] = load(network, str(tmp_path / "f.car"))
    assert (loaded.name, loaded.new, loaded.size) == ("a letter", 0, 3_000_000)


def test_pipes_and_stdin_are_read_once(network: MemoryNetwork, tmp_path: Path) -> None:
    """What cannot be read twice is taken aside first, and is gone afterwards."""
    dag = Dag()
    root = dag.folder([(b"a", dag.put(noise(1, 30_000)))])
    network.stdin = io.BytesIO(dag.car(root))
    [loaded] = load(network, "-")
    assert (loaded.cid, loaded.name) == (str(root), "")
    reader, writer = os.pipe()
    more = Dag()
    piped = more.put(noise(2, 40_000))
    os.write(writer, more.car(piped))
    os.close(writer)
    [loaded] = load(network, f"/dev/fd/{reader}")
    os.close(reader)
    assert text(network, piped) == noise(2, 40_000)
    assert os.listdir(network.journal) == []


def test_what_cannot_be_read_is_named(network: MemoryNetwork, tmp_path: Path) -> None:
    """A file that is not there, a folder, and stdin said twice."""
    with pytest.raises(FailedError, match=r"none\.car: cannot be read: No such file"):
        load(network, str(tmp_path / "none.car"))
    with pytest.raises(InvalidError, match="is a folder, not a CAR file"):
        load(network, str(tmp_path))
    with pytest.raises(InvalidError, match="imported once"):
        load(network, "-", "-")
    assert_untouched(network)


def test_a_file_that_changes_is_never_stored_under_a_false_name(tmp_path: Path) -> None:
    """A block that is other bytes when it is read again is refused, and one that is cut off, too."""
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    index = CarIndex(str(tmp_path))
    number = index.add_file(os.open(path, os.O_RDONLY), "f")
    place = Place(cid_of(b"3456").multihash, number, 3, 4)
    assert index.read(place) == b"3456"
    for damaged in (b"0123!56789", b"01234"):
        path.write_bytes(damaged)
        with pytest.raises(FailedError, match="f: changed while it was read"):
            index.read(place)
    index.close()


def test_with_members_down_nothing_is_committed(network: MemoryNetwork, tmp_path: Path) -> None:
    """Too few members: exit 3's error, and no record."""
    dag = Dag()
    path = dag.write(tmp_path / "f.car", dag.put(noise(1, 100_000)))
    network.store.down(network.store.members()[:18])
    with pytest.raises(UnavailableError):
        load(network, path)
    assert list(network.catalog.records()) == []
    network.store.heal()
    assert len(load(network, path)) == 1


def test_a_full_disk_is_told(network: MemoryNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch files that cannot grow are a failure with a next step."""

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(CarIndex, "add", full)
    dag = Dag()
    with pytest.raises(FailedError, match="disk is full"):
        load(network, dag.write(tmp_path / "f.car", dag.put(b"x")))
    assert_untouched(network)


def evil_folders(dag: Dag, outside: bytes) -> Iterator[CID]:
    payload = dag.file([b"evil" * 20, b"more"])
    link = dag.symlink(outside)
    yield dag.folder([(b"..", payload)])
    yield dag.folder([(b".", payload)])
    yield dag.folder([(b"", payload)])
    yield dag.folder([(b"a/b", payload)])
    yield dag.folder([(b"/" + outside.lstrip(b"/") + b"/x", payload)])
    yield dag.folder([(b"../../x", payload)])
    yield dag.folder([(b"a\0b", payload)])
    yield dag.folder([(b"l", link), (b"l", dag.folder([(b"x", payload)]))])
    yield dag.folder([(b"l", link), (b"l/x", payload)])
    yield dag.folder([(b"ok", payload), (b"d", dag.folder([(b"..", dag.folder([(b"x", payload)]))]))])


def test_names_that_would_leave_out_write_nothing(network: MemoryNetwork, tmp_path: Path) -> None:
    """`..`, slashes, NULs, entries below a symbolic link: refused, and nothing is at OUT or anywhere else."""
    outside = tmp_path / "outside"
    outside.mkdir()
    dag = Dag()
    roots = list(evil_folders(dag, os.fsencode(outside)))
    load(network, dag.write(tmp_path / "evil.car", *roots))
    room = tmp_path / "room"
    room.mkdir()
    for root in roots:
        with network.content.open(root) as source, pytest.raises(InvalidError):
            Exporter(source, lambda _: None).export(root, str(room / "out"))
        assert os.listdir(room) == []
        assert os.listdir(outside) == []


@pytest.mark.parametrize("refusal", ["exists", "folder", "missing block"])
def test_an_export_leaves_nothing_unless_whole(
    network: MemoryNetwork, half: Partial, tmp_path: Path, refusal: str
) -> None:
    """What exists stays as it was, a folder is never replaced, and a DAG that lacks a block leaves no file."""
    load(network, half.path, partial=True)
    room = tmp_path / "room"
    room.mkdir()
    out = room / "f.car"
    error: type[FungiStorError] = InvalidError
    if refusal == "exists":
        out.write_bytes(b"mine")
    elif refusal == "folder":
        out.mkdir()
    else:
        error = NotFoundError
    for force in (False, True) if refusal != "exists" else (False,):
        with pytest.raises(error):
            unload(network, half.root, out, force=force)
    assert os.listdir(room) == ([] if refusal == "missing block" else ["f.car"])
    if refusal == "exists":
        assert out.read_bytes() == b"mine"
        assert unload(network, cid_of(half.parts[0]), out, force=True) != b"mine"


# the pieces


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.one_of(st.none(), st.lists(st.binary(max_size=5), max_size=9)), max_size=60))
def test_the_stack_is_one_however_much_is_on_disk(tmp_path: Path, steps: list[list[bytes] | None]) -> None:
    """With room for two items in memory it gives what a list gives."""
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(Pending(str(tmp_path))) as pending:
        patch.setattr(pendings, "CHUNK_ITEMS", 2)
        model: list[bytes] = []
        for items in steps:
            if items is None:
                assert pending.pop() == (model.pop() if model else None)
            else:
                pending.push(items)
                model += items
        while model:
            assert pending.pop() == model.pop()
        assert pending.pop() is None


@FOUND
@given(seed=st.integers(0, 2**32))
def test_a_walk_meets_what_a_plain_search_meets(tmp_path: Path, seed: int) -> None:
    """Random DAGs with shared parts and holes: blocks, bytes, missing ones and strays as counted by brute force."""
    chance = random.Random(seed)
    dag = Dag()
    made = [dag.put(chance.randbytes(chance.randrange(1, 50))) for _ in range(5)] + [cid_of(b"hole"), identity(b"i")]
    for _ in range(chance.randrange(1, 30)):
        maker: Callable[[list[CID]], CID] = chance.choice(
            [dag.list, lambda cids: dag.folder([(b"%d" % number, cid) for number, cid in enumerate(cids)])]
        )
        made.append(maker(chance.choices(made, k=chance.randrange(0, 5))))
    root = chance.choice(made[7:])
    reached: set[CID] = set()

    def visit(cid: CID) -> None:
        if cid not in reached:
            reached.add(cid)
            for child in links(cid, dag.blocks[cid]) if cid in dag.blocks else []:
                visit(child)

    visit(root)
    here = {cid for cid in reached if cid in dag.blocks}
    with contextlib.closing(scanned(tmp_path, dag)) as index:
        walker = Walker(index, str(tmp_path))
        for _ in range(2):
            found = survey(index, walker, root)
            assert (found.blocks, found.bytes) == (len(here), sum(len(dag.blocks[cid]) for cid in here))
            assert found.missing == len([cid for cid in reached - here if not cid.is_identity])
        assert index.unmarked() == len({cid.multihash for cid in dag.blocks}) - len(here)
    (tmp_path / "car-index.db").unlink()


def scanned(folder: Path, dag: Dag) -> CarIndex:
    """An index over a DAG's blocks."""
    index = CarIndex(str(folder))
    data = b"".join(dag.blocks.values())
    (folder / "blocks").write_bytes(data)
    number = index.add_file(os.open(folder / "blocks", os.O_RDONLY), "blocks")
    start = 0
    for cid, block in dag.blocks.items():
        linkless = cid.codec if cid.codec != RAW and not links(cid, block) else 0
        index.add([(Place(cid.multihash, number, start, len(block)), linkless)])
        start += len(block)
    return index


def test_profiles_that_import_makes_are_read_with_their_leaves(network: MemoryNetwork, tmp_path: Path) -> None:
    """A raw leaf alone is an object, and a file."""
    dag = Dag()
    codec, leaf = encode_leaf(UNIXFS_V1_2025, noise(1, 300_000))
    root = dag.put(bytes(leaf), codec)
    [loaded] = load(network, dag.write(tmp_path / "f.car", root))
    assert (loaded.blocks, loaded.size) == (1, 300_000)
    assert text(network, root) == noise(1, 300_000)
