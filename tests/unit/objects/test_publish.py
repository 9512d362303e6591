"""Publishing whole: what is promised of the outcome, what is refused, and what members may learn."""

from __future__ import annotations

import base64
import io
import os
import random
from pathlib import Path

import pytest

from fungistor.dag import CID, PROFILES
from fungistor.dag.multibase import encode_base32, encode_base36, encode_base58
from fungistor.errors import InvalidError, NotEnoughShardsError
from fungistor.limits import INLINE_BYTES_MAX
from fungistor.objects.export import Exporter
from fungistor.objects.publish import Publisher, check_options, hash_only
from fungistor.objects.results import PublishFailure, PublishOptions, PublishOutcome
from fungistor.objects.storing import ONE_THREAD_BYTES
from fungistor.testing.memory_network import MemoryNetwork, members
from tests.unit.objects.trees import contents, grow, imported, noise, write


def fetched(network: MemoryNetwork, cid: str, out: Path) -> Path:
    """Get an object as a fresh process does."""
    network.forget()
    root = CID.parse(cid)
    with network.content.open(root) as source:
        Exporter(source, lambda _: None).export(root, str(out))
    return out


@pytest.mark.parametrize("profile", sorted(PROFILES))
@pytest.mark.parametrize("seed", range(4))
def test_a_random_tree_goes_there_and_back(
    network: MemoryNetwork, tmp_path: Path, tree: Path, profile: str, seed: int
) -> None:
    """Published under each profile, fetched by a process that knows nothing, equal byte for byte; any four members
    may be dead meanwhile."""
    grow(tree, random.Random(seed), files=40, bytes_max=800_000)
    outcome = network.publish(str(tree), PublishOptions(profile=profile, hidden=True))
    assert outcome.cid == str(imported(tree, PROFILES[profile]).cid)
    assert (outcome.survives, outcome.owed, outcome.profile, outcome.name) == (4, 0, profile, "tree")
    assert outcome.new == outcome.stored == sum(map(len, network.store.values().values()))
    network.store.down(random.Random(seed).sample(network.store.members(), 4))
    assert contents(fetched(network, outcome.cid, tmp_path / "out")) == contents(tree)


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, ONE_THREAD_BYTES + 1])
def test_every_size_is_stored_and_weighed(network: MemoryNetwork, tree: Path, size: int) -> None:
    """At each border of how an object is stored: bytes come back, and the sizes told are those on members."""
    outcome = network.publish(str(write(tree, "f", noise(1, size))))
    network.forget()
    assert b"".join(network.read(outcome.cid)) == noise(1, size)
    assert outcome.size == size
    assert outcome.stored == sum(map(len, network.store.values().values()))
    assert outcome.sealed >= size
    record = network.record(outcome.cid)
    assert record.sizes.stripes == len(network.slots(outcome.cid))
    if size > 1 << 20:
        assert outcome.overhead is not None
        assert outcome.overhead < 1.27
    assert outcome.overhead is None or size


@pytest.mark.parametrize("count", [5, 6, 12, 19])
def test_smaller_pools_survive_four_losses_as_well(home: Path, tree: Path, count: int) -> None:
    """From five members up any four may die; with four the publish is refused as input."""
    data = noise(1, 2_000_000)
    path = str(write(tree, "f", data))
    with MemoryNetwork(str(home), members(count)) as network:
        outcome = network.publish(path)
        assert outcome.survives == 4
        network.store.down(network.store.members()[-4:])
        network.forget()
        assert b"".join(network.read(outcome.cid)) == data


def test_paths_are_objects_of_their_own_and_fail_alone(network: MemoryNetwork, tree: Path) -> None:
    """One path of three is missing: the others are committed, in order, and the failure names its path."""
    paths = [str(write(tree, "a", b"a")), str(tree / "missing"), str(write(tree, "b", b"b"))]
    results = network.publish_all(paths)
    assert [result.path for result in results] == paths
    assert [isinstance(result, PublishFailure) for result in results] == [False, True, False]
    assert isinstance(results[1], PublishFailure)
    assert results[1].error.exit_code == 4


@pytest.mark.parametrize("size", [100, 4 * ONE_THREAD_BYTES])
def test_a_path_that_fails_half_way_leaves_no_object(network: MemoryNetwork, tree: Path, size: int) -> None:
    """A special file at the end of a folder, met before the first shard or after many: nothing of the folder is
    committed. What went out by then is left for the next publish of it, which leaves no journal entry."""
    write(tree, "a", noise(1, size))
    os.mkfifo(tree / "z")
    [result] = network.publish_all([str(tree)])
    assert isinstance(result, PublishFailure)
    assert isinstance(result.error, InvalidError)
    assert list(network.catalog.records()) == []
    assert bool(contents(Path(network.journal))) is (size > ONE_THREAD_BYTES)
    os.unlink(tree / "z")
    published = network.publish(str(tree))
    assert published.new <= published.stored - (size if size > ONE_THREAD_BYTES else 0) / 4
    assert contents(Path(network.journal)) == {}


def test_wrapped_paths_are_one_folder(network: MemoryNetwork, tmp_path: Path, tree: Path) -> None:
    """--wrap gives the root of a folder that holds them, whatever order they are named in."""
    one, two = write(tmp_path, "x/b", b"b"), write(tmp_path, "y/a/deep", b"deep").parent
    write(tree, "b", b"b")
    write(tree, "a/deep", b"deep")
    [result] = network.publish_all([str(one), str(two)], PublishOptions(wrap=True, name="both"))
    assert isinstance(result, PublishOutcome)
    assert result.cid == str(imported(tree, PROFILES["unixfs-v1-2025"]).cid)
    assert (result.name, result.size) == ("both", 5)
    [again] = network.publish_all([str(one), str(write(tmp_path, "z/b", b"other"))], PublishOptions(wrap=True))
    assert isinstance(again, PublishFailure)
    assert "two paths are named b" in again.error.message


@pytest.mark.parametrize("size", [0, 5, INLINE_BYTES_MAX + 5, 3_000_000])
def test_the_standard_input_is_an_object(network: MemoryNetwork, tree: Path, size: int) -> None:
    """`-` has the CID of a file with these bytes, and no name."""
    network.stdin = io.BytesIO(noise(1, size))
    outcome = network.publish("-")
    assert outcome.cid == str(imported(write(tree, "f", noise(1, size)), PROFILES["unixfs-v1-2025"]).cid)
    assert (outcome.name, outcome.size) == ("", size)
    assert b"".join(network.read(outcome.cid)) == noise(1, size)


@pytest.mark.parametrize(
    ("options", "paths", "words"),
    [
        (PublishOptions(profile="none"), ["a"], "no profile named none"),
        (PublishOptions(name="n"), ["a", "b"], "--name with several paths"),
        (PublishOptions(name="ä" * 128), ["a"], "at most 255 bytes"),
        (PublishOptions(), ["-", "-"], "standard input"),
        (PublishOptions(wrap=True), ["a", "-"], "standard input"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: PublishOptions, paths: list[str], words: str) -> None:
    """Before anything is read, with what is wrong and what there is instead."""
    with pytest.raises(InvalidError, match=words):
        check_options(options, paths)
    with pytest.raises(InvalidError, match=words):
        list(hash_only(paths, options, io.BytesIO()))


def test_hashing_alone_gives_the_cid_and_touches_nothing(network: MemoryNetwork, tree: Path) -> None:
    """--only-hash agrees with publish on CID, size, name and skipped entries."""
    grow(tree, random.Random(3), files=20, bytes_max=500_000)
    write(tree, ".hidden", b"x")
    [hashed] = hash_only([str(tree)], PublishOptions(), io.BytesIO())
    assert isinstance(hashed, PublishOutcome)
    assert (hashed.revision, hashed.survives, hashed.stored, hashed.overhead) == (None, None, 0, None)
    assert network.store.values() == {}
    outcome = network.publish(str(tree))
    assert (hashed.cid, hashed.size, hashed.name, hashed.skipped) == (
        outcome.cid, outcome.size, outcome.name, outcome.skipped
    )  # fmt: skip
    assert outcome.skipped == 1


def test_equal_content_is_stored_once(network: MemoryNetwork, tree: Path) -> None:
    """A folder of twenty equal files weighs as one."""
    for number in range(20):
        write(tree, f"d{number}/f", noise(1, 500_000))
    outcome = network.publish(str(tree))
    assert outcome.size == 20 * 500_000
    assert outcome.stored < 1.4 * 500_000


def test_text_is_compressed_and_noise_is_not(network: MemoryNetwork, tree: Path) -> None:
    """What shrinks is sealed shrunk, what does not is sealed as it is; both come back."""
    text = b"the quick brown fox jumps over the lazy dog\n" * 40_000
    outcome = network.publish(str(write(tree, "text", text)))
    assert outcome.sealed < len(text) / 10
    assert b"".join(network.read(outcome.cid)) == text


def test_progress_reaches_its_total(network: MemoryNetwork, tree: Path) -> None:
    """Progress rises to the bytes announced."""
    grow(tree, random.Random(5), files=20, bytes_max=500_000)
    told: list[tuple[int, int | None]] = []
    list(
        Publisher(network.ports()).publish(
            [str(tree)], PublishOptions(hidden=True), lambda done, total, _: told.append((done, total))
        )
    )
    assert told[-1][0] == told[-1][1] == max(done for done, _ in told)
    assert told == sorted(told)


def test_debts_at_the_acknowledgement_are_told(network: MemoryNetwork, tree: Path) -> None:
    """Two members late: the publish succeeds, says that it survives two further losses, and who owes stands in the
    record."""
    late = network.store.members()[:2]
    for member in late:
        network.store[member].faults.owes = True
    outcome = network.publish(str(write(tree, "f", noise(1, 3_000_000))))
    assert outcome.survives == 2
    owed = network.record(outcome.cid).owed
    assert {member for member, _ in owed} <= set(late)
    assert outcome.owed == sum(count for _, count in owed) > 0
    assert outcome.new < outcome.stored


# What members may learn


def spellings(digest: bytes) -> list[bytes]:
    """A multihash's digest as it might leak: raw, hex, base32, base36, base58, base64, with its head or without."""
    multihash = b"\x12\x20" + digest
    texts = [digest.hex(), base64.b64encode(digest).decode(), base64.b32encode(digest).decode()]
    texts += [encode(part) for encode in (encode_base32, encode_base36, encode_base58) for part in (digest, multihash)]
    texts += [str(CID(1, 0x55, multihash)), str(CID(1, 0x70, multihash))]
    return [digest, *(text.encode() for text in texts), *(text.upper().encode() for text in texts)]


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_members_see_neither_names_nor_content_nor_hashes(network: MemoryNetwork, tree: Path, profile: str) -> None:
    """In all keys and values together there is no file name, no 16 bytes of content, and no block's hash."""
    names = [f"confidential-{number}-{'x' * number}" for number in range(8)]
    secrets = [
        b"PLAIN TEXT that anyone would recognise; " * 3000,
        noise(1, 300_000),
        noise(2, 900),
        b"short but secret!",
    ]
    datas = [*secrets, bytes(50_000), noise(3, 20_000), b"0123456789abcdef" * 2, noise(4, 700_000)]
    for name, data in zip(names, datas, strict=True):
        write(tree, f"folder-{name}/{name}", data)
    blocks: dict[bytes, bytes] = {}
    imported(tree, PROFILES[profile], lambda block: blocks.update({block.cid.multihash: block.data}))
    outcome = network.publish(str(tree), PublishOptions(profile=profile, name="the-name-of-the-object"))
    haystack = b"\n".join(part for pair in network.store.values().items() for part in pair)
    assert outcome.cid.encode() not in haystack
    for name in [*names, "the-name-of-the-object", *(f"folder-{name}" for name in names)]:
        assert name.encode() not in haystack
        assert name.encode()[:16] not in haystack
    for multihash in blocks:
        assert not any(spelling in haystack for spelling in spellings(multihash[2:]))
    # Any 31 bytes of content hold an aligned run of 16.
    runs = {data[at : at + 16] for data in blocks.values() for at in range(0, len(data) - 15, 16)}
    assert not any(haystack[at : at + 16] in runs for at in range(len(haystack) - 15))


def test_the_log_sees_neither_names_nor_roots(network: MemoryNetwork, tree: Path) -> None:
    """Commands in the log hold no name, no root and no object key."""
    write(tree, "confidential", noise(1, 30_000))
    outcome = network.publish(str(tree), PublishOptions(name="the-name-of-the-object"))
    root = CID.parse(outcome.cid)
    key = network.content.object_key(network.record(root))
    log = b"\n".join(network.log.store.payloads)
    for secret in (b"confidential", b"the-name-of-the-object", root.digest, outcome.cid.encode(), key):
        assert secret not in log


def test_equal_objects_of_two_networks_have_nothing_in_common(tmp_path: Path, tree: Path) -> None:
    """The same file in two networks: no key, no value and no record is alike."""
    path = str(write(tree, "f", noise(1, 100_000)))
    seen: list[set[bytes]] = []
    for number in range(2):
        home = tmp_path / f"home{number}"
        home.mkdir()
        with MemoryNetwork(str(home), members(20)) as network:
            outcome = network.publish(path)
            values = network.store.values()
            seen.append({*values, *values.values(), network.record(outcome.cid).object_id})
    assert not seen[0] & seen[1]


def test_a_swapped_value_is_never_served(network: MemoryNetwork, tree: Path) -> None:
    """Members that swap all their values among themselves give an error, never other bytes."""
    outcome = network.publish(str(write(tree, "f", noise(1, 100_000))))
    for member in network.store.all.values():
        keys = list(member.values)
        rotated = [member.values[key] for key in keys[1:] + keys[:1]]
        member.values.update(zip(keys, (value[::-1] for value in rotated), strict=True))
    network.forget()
    with pytest.raises(NotEnoughShardsError):
        b"".join(network.read(outcome.cid))
