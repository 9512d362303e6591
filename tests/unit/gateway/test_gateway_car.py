"""CARs: which blocks, in which order, under which header fields; the trustless gateway's rules, case by case."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from fungistor.dag.cid import CID, RAW, sha256_multihash
from fungistor.dag.links import links
from fungistor.errors import UnavailableError
from fungistor.testing.memory_content import MemoryContent
from gateway.formats import car
from tests.unit.gateway.formats_site import MULTI, SMALL, Site, formats_site
from tests.unit.gateway.live import serving

TYPE = "application/vnd.ipld.car"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with formats_site() as made:
        yield made


def dfs(site: Site, cid: CID) -> list[CID]:
    """A DAG's blocks in their depth-first order, none twice: reckoned apart from the gateway's own walk."""
    found = [cid]
    for child in links(cid, site.block(cid)):
        found += [each for each in dfs(site, child) if each not in found]
    return found


def leaves(site: Site, first: int, last: int) -> list[CID]:
    """The blocks that lead to bytes `first` to `last` of MULTI: the root, and depth first those above them."""
    wanted = {RAW_OF[index] for index in range(first // 256, last // 256 + 1)}

    def below(cid: CID) -> list[CID]:
        if cid.codec == RAW:
            return [cid] if cid in wanted else []
        found = [each for child in links(cid, site.block(cid)) for each in below(child)]
        return [cid, *found] if found else []

    return below(site.at(site.tree, "subdir/multi.bin"))


RAW_OF = [CID(1, RAW, sha256_multihash(MULTI[start : start + 256])) for start in range(0, len(MULTI), 256)]


@pytest.mark.parametrize("by", ["query", "accept"])
@pytest.mark.parametrize(
    ("root", "path", "scope"),
    [
        ("tree", "", "all"),
        ("tree", "subdir", "all"),
        ("tree", "subdir/multi.bin", "all"),
        ("tree", "subdir/multi.bin", "block"),
        ("tree", "subdir/multi.bin", "entity"),
        ("tree", "subdir", "block"),
        ("tree", "subdir", "entity"),
        ("tree", "", "entity"),
        ("sharded", "007.txt", "all"),
        ("sharded", "007.txt", "block"),
        ("sharded", "", "block"),
        ("cbor", "", "entity"),
        ("cbor", "", "block"),
        ("cbor", "", "all"),
        ("cbor", "files/multi", "all"),
        ("cbor", "foo/link", "entity"),
    ],
)
def test_scopes(site: Site, by: str, root: str, path: str, scope: str) -> None:
    """A CAR has the blocks of the path, then those of the scope, depth first, whichever way it is asked for."""
    cid: CID = getattr(site, root)
    parts = [part for part in path.split("/") if part]
    way: list[CID] = []
    if root == "sharded" and parts:
        way = [block for block in dfs(site, cid) if block.codec != RAW and _leads_to(site, block, site.at(cid, path))]
    elif parts and root == "cbor":
        way = [cid]
    else:
        way = [site.at(cid, "/".join(parts[:depth])) for depth in range(len(parts))]
    terminal = site.at(cid, path)
    below = dfs(site, terminal)
    if scope == "block" or (scope == "entity" and (root == "cbor" or not path.endswith(".bin"))):
        below = [block for block in below if block == terminal or _is_shard_of(site, terminal, block, scope)]
    target = f"/ipfs/{cid}{'/' if path else ''}{path}?dag-scope={scope}"
    found = site.car(f"{target}&format=car") if by == "query" else site.car(target, Accept=TYPE)
    assert found == [*way, *below]


def _leads_to(site: Site, shard: CID, end: CID) -> bool:
    return end in dfs(site, shard)


def _is_shard_of(site: Site, terminal: CID, block: CID, scope: str) -> bool:
    return scope == "entity" and terminal == site.sharded and block.codec != RAW


def test_entity_of_a_sharded_directory(site: Site) -> None:
    """All shards and none of the files, so that a client can list it and no more."""
    shards = [cid for cid in dfs(site, site.sharded) if cid.codec != RAW]
    assert len(shards) > 3
    assert site.car(f"/ipfs/{site.sharded}?format=car&dag-scope=entity") == shards


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("0:*", 0, 1025),
        ("0:0", 0, 0),
        ("512:*", 512, 1025),
        ("512:1023", 512, 1023),
        ("512:-256", 512, 770),
        ("-5:*", 1021, 1025),
        ("-9999:*", 0, 1025),
        ("-9999:-300", 0, 726),
        ("300:99999", 300, 1025),
        ("-2:-1", 1024, 1025),
    ],
)
@pytest.mark.parametrize("by", ["query", "accept"])
def test_entity_bytes(site: Site, by: str, asked: str, first: int, last: int) -> None:
    """A part of a file has the root and the fewest blocks that give it; negative places count from the end."""
    cid = site.at(site.tree, "subdir/multi.bin")
    target = f"/ipfs/{cid}?dag-scope=entity&entity-bytes={asked}"
    found = site.car(f"{target}&format=car") if by == "query" else site.car(target, Accept=TYPE)
    assert found == leaves(site, first, last)


@pytest.mark.parametrize("asked", ["2000:*", "1026:1026"])
def test_entity_bytes_beyond_the_end(site: Site, asked: str) -> None:
    """A part behind the end has the root alone: it proves how long the file is."""
    cid = site.at(site.tree, "subdir/multi.bin")
    assert site.car(f"/ipfs/{cid}?format=car&entity-bytes={asked}") == [cid]


@pytest.mark.parametrize(("asked", "part"), [("0:200", b"A"), ("600:*", b"C")])
def test_entity_bytes_beside_a_missing_block(site: Site, asked: str, part: bytes) -> None:
    """A block that is not there does no harm to a part that does not need it."""
    found = site.car(f"/ipfs/{site.holed}?format=car&dag-scope=entity&entity-bytes={asked}")
    assert found == [site.holed, CID(1, RAW, sha256_multihash(part * 256))]


def test_entity_bytes_of_a_directory(site: Site) -> None:
    """A directory has no bytes to cut: it comes as an entity."""
    target = f"{site.path}/subdir?format=car&dag-scope=entity"
    assert site.car(f"{target}&entity-bytes=0:5") == site.car(target)


@pytest.mark.parametrize(
    ("query", "accept", "repeats", "told"),
    [
        ("", f"{TYPE}; version=1; order=dfs; dups=y", True, "y"),
        ("", f"{TYPE}; version=1; order=dfs; dups=n", False, "n"),
        ("", f"{TYPE}; order=unk", False, "n"),
        ("?format=car", f"{TYPE}; dups=y", True, "y"),
        ("?format=car&car-dups=y&car-order=dfs", f"{TYPE}; order=unk; dups=n", True, "y"),
        ("?format=car&car-dups=n", f"{TYPE}; dups=y", False, "n"),
        ("?format=car", "*/*", False, "n"),
    ],
)
def test_duplicates(site: Site, query: str, accept: str, repeats: bool, told: str) -> None:
    """Order and duplicates are as asked, the URL before Accept, and the type of the answer says which they are."""
    cid = site.at(site.tree, "twice")
    found = site.car(f"/ipfs/{cid}{query}", Accept=accept)
    leaf = CID(1, RAW, sha256_multihash(b"the same"))
    assert found == [cid, leaf, leaf] if repeats else [cid, leaf]
    media_type = site.live.get(f"/ipfs/{cid}{query}", Accept=accept).headers["content-type"]
    assert media_type == f"{TYPE}; version=1; order=dfs; dups={told}"


def test_header_fields(site: Site) -> None:
    """A CAR is an attachment that is never sniffed, never cut, and cached for good under a weak tag."""
    answer = site.live.get(f"{site.path}/subdir/multi.bin", Accept=TYPE)
    fields = answer.headers
    assert fields["x-content-type-options"] == "nosniff"
    assert fields["accept-ranges"] == "none"
    assert fields["cache-control"] == "public, max-age=29030400, immutable"
    assert fields["content-disposition"].startswith(f'attachment; filename="{site.tree}_multi.bin.car"')
    terminal = site.at(site.tree, "subdir/multi.bin")
    assert fields["etag"].startswith(f'W/"{terminal}.car.')
    assert fields["x-ipfs-roots"].split(",")[-1] == str(terminal)
    assert fields["content-location"] == f"{site.path}/subdir/multi.bin?format=car&car-order=dfs&car-dups=n"
    assert fields["vary"] == "Accept"
    again = site.live.get(f"{site.path}/subdir/multi.bin", Accept=TYPE, If_None_Match=fields["etag"])
    assert (again.status_code, again.content) == (304, b"")
    other = site.live.get(f"{site.path}/subdir/multi.bin?dag-scope=block", Accept=TYPE)
    assert other.headers["etag"] != fields["etag"]


def test_precedence(site: Site) -> None:
    """The URL's format wins over Accept, both ways round."""
    car_type = site.live.get(f"{site.path}?format=car", Accept="application/vnd.ipld.raw").headers["content-type"]
    assert car_type.startswith(TYPE)
    raw_type = site.live.get(f"{site.path}?format=raw", Accept=TYPE).headers["content-type"]
    assert raw_type == "application/vnd.ipld.raw"


def test_identity_blocks_are_never_in_a_car(site: Site) -> None:
    """A CID that holds its own bytes makes a CAR of a header alone, with duplicates asked for, too."""
    assert site.car("/ipfs/bafkqabtimvwgy3yk?format=car&car-dups=y") == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("dag-scope=half", 400),
        ("entity-bytes=5", 400),
        ("entity-bytes=*:5", 400),
        ("entity-bytes=9:3", 400),
        ("entity-bytes=0:99999999999999999999", 400),
        ("car-version=2", 406),
        ("car-order=bfs", 406),
        ("car-dups=maybe", 400),
    ],
)
def test_refused_queries(site: Site, query: str, status: int) -> None:
    """What is not understood is refused, never guessed."""
    assert site.live.get(f"{site.path}?format=car&{query}").status_code == status


@pytest.mark.parametrize("path", ["nope", "subdir/multi.bin/below"])
def test_missing_paths(site: Site, path: str) -> None:
    """A path that leads nowhere is 404, not a CAR of nothing."""
    assert site.live.get(f"{site.path}/{path}?format=car").status_code == 404


def test_head(site: Site) -> None:
    """HEAD has the fields of GET, asks for no block below the end of the path, and has no body."""
    before = len(site.content.asked)
    answer = site.live.request("HEAD", f"{site.path}/subdir?format=car")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith(TYPE)
    assert len(site.content.asked) - before <= 2


def test_missing_block_breaks_the_answer_off() -> None:
    """A block that is gone far into a CAR resets the connection: a short CAR never looks whole."""
    content = MemoryContent()
    root = content.add_file(b"".join(number.to_bytes(4, "big") * 64 for number in range(1000)), SMALL)
    with serving(content) as live:
        whole = live.get(f"/ipfs/{root.cid}?format=car&car-version=1").content  # not the request that is to fail
        assert len(whole) > 256_000
        half = len(content.asked) + len(content.asked) // 2
        content.fault = lambda _: UnavailableError("gone") if len(content.asked) > half else None
        with pytest.raises(httpx.HTTPError):
            live.get(f"/ipfs/{root.cid}?format=car")


def test_repeats_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DAG of few blocks and endless repeats is broken off when duplicates are asked for."""
    monkeypatch.setattr(car, "DUPLICATES_MAX", 500)
    content = MemoryContent()
    root = content.add_file(b"z" * 256 * 3**7, SMALL)
    with serving(content) as live:
        assert len(live.get(f"/ipfs/{root.cid}?format=car").content) < 4000
        with pytest.raises(httpx.HTTPError):
            live.get(f"/ipfs/{root.cid}?format=car&car-dups=y")


def test_many_tiny_blocks_stream() -> None:
    """A CAR of ten thousand blocks comes whole while what is held stays small: it streams without a length."""
    content = MemoryContent()
    tree = {f"{number:05d}": number.to_bytes(4, "big") for number in range(10_000)}
    root = content.add_tree(tree)
    with serving(content) as live:
        answer = live.get(f"/ipfs/{root.cid}?format=car")
    assert "content-length" not in answer.headers
    assert answer.content.count(b"\x01\x55\x12\x20") >= 10_000
