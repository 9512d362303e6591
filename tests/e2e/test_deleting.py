"""Deleting on a running network: space returns on members' disks, killed runs go on, and the attacker finds nothing."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fungistor.coding.manifest import Stored
from fungistor.dag.cid import CID
from fungistor.errors import FungiStorError
from fungistor.ids import TenantNumber
from fungistor.keys.files import load_root_key
from fungistor.keys.ring import unwrap
from fungistor.keys.table import KeyTable
from fungistor.node.children import wait_until
from fungistor.node.home import Home
from fungistor.node.wiring import open_network
from fungistor.objects.naming import open_name
from tests.e2e.running import COMMAND_S, Up, running
from tests.unit.objects.trees import noise

NAME = "kept-from-everybody.bin"
MEMBERS = 6
DISK_BLOCK_BYTES = 4096
COPY_BYTES = 500
"""Of a command and an object's key on each member that has a copy of the log."""

SAMPLE_BYTES = 48
KILLS = int(os.environ.get("FUNGISTOR_GC_KILLS", "50"))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("net") / "home", ["--members", "6", "--no-sync"]) as network:
        yield network


def used_bytes(up: Up) -> int:
    """What `du` says of the members' folders, but for the folders themselves."""
    files = [path for path in (up.home / "members").rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks * 512 for path in files)


def emptied_bytes(up: Up) -> int:
    """What is left, for the original's sake, of files that were compacted away: an index file of its head each."""
    folders = [path for path in (up.home / "members").glob("*/index/*") if path.is_dir()]
    data = {str(path).replace("/data/", "/index/") for path in (up.home / "members").glob("*/data/*/d*")}
    indexes = [path for folder in folders for path in folder.glob("i*")]
    return DISK_BLOCK_BYTES * sum(str(path.with_name("d" + path.name[1:])) not in data for path in indexes)


def last_entry(up: Up) -> int:
    return int(str(up.lines("log")[-1]["number"]))


def publish(up: Up, path: Path) -> str:
    (line,) = up.lines("publish", str(path))
    return str(line["cid"])


def test_space_returns_on_the_members(up: Up, tmp_path: Path) -> None:
    """Also when the first publisher of shared blocks goes: then the disks hold what the second alone would take."""
    (tmp_path / "stays").write_bytes(noise(1, 2_000_000))
    stays = publish(up, tmp_path / "stays")
    up.lines("gc", "--grace", "0")
    before = used_bytes(up)
    for number in range(30):
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / "all" / f"f{number}").write_bytes(noise(100 + number, 300_000))
    first = publish(up, tmp_path / "all")
    up.lines("unpublish", first)
    (line,) = up.lines("gc", "--grace", "0")
    assert line["pending"] == line["stuck"] == [] and int(str(line["freed"])) > 9_000_000
    assert used_bytes(up) <= 1.05 * before

    first = publish(up, tmp_path / "all")
    (tmp_path / "few").mkdir()
    for number in range(5):
        (tmp_path / "few" / f"f{number}").write_bytes(noise(100 + 6 * number, 300_000))
    second = publish(up, tmp_path / "few")
    up.lines("unpublish", first)
    (line,) = up.lines("gc", "--grace", "0")
    assert line["repacked"] and not line["waiting"]
    shared = used_bytes(up)
    assert up.command("verify", "--all").returncode == 0
    up.lines("unpublish", second)
    up.lines("gc", "--grace", "0")
    alone = publish(up, tmp_path / "few")
    assert shared <= 1.05 * used_bytes(up)
    up.lines("unpublish", alone)
    assert up.command("get", stays, "-o", str(tmp_path / "copy")).returncode == 0
    assert (tmp_path / "copy").read_bytes() == noise(1, 2_000_000)
    assert up.command("get", first, "-o", str(tmp_path / "gone")).returncode == 4


@pytest.mark.parametrize("count", [80, pytest.param(1000, marks=pytest.mark.soak)])
def test_every_second_of_many_small_objects_goes(tmp_path: Path, count: int) -> None:
    """Small objects share stripes: with every second one gone and gc done, the members hold what the others alone
    would take, within 5 % and the copies of the commands that brought them and took them, and the others read."""
    contents = {f"f{number}": noise(1000 + number, 14_000 + number % 700) for number in range(count)}
    (tmp_path / "in").mkdir()
    for name, content in contents.items():
        (tmp_path / "in" / name).write_bytes(content)
    paths = [str(tmp_path / "in" / name) for name in contents]
    held = []
    for home, chosen in (("all", paths), ("half", paths[::2])):
        with running(tmp_path / home, ["--members", str(MEMBERS), "--no-sync"]) as network:
            empty = used_bytes(network)
            cids = [str(line["cid"]) for line in network.lines("publish", *chosen)]
            if home == "all":
                gone = network.lines("unpublish", *cids[1::2])
                assert len(gone) == len(cids[1::2])
                (line,) = network.lines("gc", "--grace", "0")
                assert line["pending"] == line["stuck"] == [] and line["waiting"] == 0
                assert network.command("verify", "--all").returncode == 0
                for name, cid in zip(contents, cids, strict=True):
                    answer = httpx.get(f"{network.gateway}/ipfs/{cid}", timeout=COMMAND_S)
                    stays = int(name[1:]) % 2 == 0
                    assert (answer.content == contents[name]) if stays else (answer.status_code == 404), name
            held.append(used_bytes(network) - empty)
    print(f"{count} objects: {held[0]} bytes after every second went, {held[1]} for the others alone")
    assert held[0] <= 1.05 * held[1] + MEMBERS * (DISK_BLOCK_BYTES + count * COPY_BYTES)


@pytest.mark.parametrize("kills", [2, pytest.param(KILLS, marks=pytest.mark.soak)])
def test_killed_at_a_point_drawn_by_a_seed_nothing_that_stands_is_lost(up: Up, tmp_path: Path, kills: int) -> None:
    """kill -9 of gc, again and again: what stands verifies each time, and the next whole run gives the space back, but
    for the copies of what was committed meanwhile; and these go with the next snapshot."""
    (tmp_path / "few").mkdir()
    (tmp_path / "all").mkdir()
    for number in range(12):
        (tmp_path / "all" / f"f{number}").write_bytes(noise(200 + number, 300_000))
    up.lines("gc", "--grace", "0")
    before = held = used_bytes(up) - emptied_bytes(up)
    entry = last_entry(up)
    for number in (2, 9):
        (tmp_path / "few" / f"f{number}").write_bytes(noise(200 + number, 300_000))
    for seed in range(kills):
        first = publish(up, tmp_path / "all")
        second = publish(up, tmp_path / "few")
        up.lines("unpublish", first)
        argv = [sys.executable, "-m", "fungistor.node", "--home", str(up.home), "gc", "--grace", "0"]
        collecting = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            collecting.wait(random.Random(seed).uniform(0.3, 2.0))
        collecting.send_signal(signal.SIGKILL)
        collecting.wait()
        assert up.command("verify", second).returncode == 0, f"seed {seed}"
        (line,) = up.lines("gc", "--grace", "0")
        assert line["waiting"] == 0
        assert up.command("verify", second).returncode == 0, f"seed {seed}"
        up.lines("unpublish", second)
        up.lines("gc", "--grace", "0")
        before_it, entry = entry, last_entry(up)
        copies = MEMBERS * (DISK_BLOCK_BYTES + (entry - before_it) * COPY_BYTES)
        assert used_bytes(up) - emptied_bytes(up) <= 1.05 * held + copies, f"seed {seed}"
        held = used_bytes(up) - emptied_bytes(up)
    (snapshot,) = up.lines("catalog", "snapshot")
    size = int(str(snapshot["size"])) // int(str(snapshot["k"]))

    def is_given_back() -> bool:
        up.lines("gc", "--grace", "0")
        return used_bytes(up) - emptied_bytes(up) <= 1.05 * before + MEMBERS * (DISK_BLOCK_BYTES + size)

    assert wait_until(is_given_back, COMMAND_S, 0.5)
    after, emptied = used_bytes(up) - emptied_bytes(up), emptied_bytes(up)
    print(f"{kills} kills: {before} bytes held before, {after} after, {emptied} in emptied files, {size} a snapshot")
    assert is_given_back()


def test_the_attacker_who_has_everything_finds_nothing(up: Up, tmp_path: Path) -> None:
    """Members' folders, catalog, home with caches and journals, and the root key, taken after shred and gc: neither
    the content nor the names of the object's own blocks can be had from them."""
    content = noise(7, 1_500_000)
    (tmp_path / NAME).write_bytes(content)
    cid = publish(up, tmp_path / NAME)
    assert httpx.get(f"{up.gateway}/ipfs/{cid}", timeout=COMMAND_S).content == content  # now it is cached, too
    secrets, sealed_names = _secrets(up, cid, content)
    spans = secrets.pop("sealed")
    assert any(_holds(up.home, sample) for sample in spans), "members do hold it before"
    assert _holds(up.home, secrets["wrapped key"][0])
    up.lines("unpublish", cid)
    up.lines("gc", "--grace", "0")
    assert httpx.get(f"{up.gateway}/ipfs/{cid}", timeout=COMMAND_S).status_code == 404
    for what, samples in secrets.items():
        for sample in samples:
            assert not (where := _holds(up.home, sample)), f"{what} in {where}"
    for sample in spans:
        assert not (where := _holds(up.home / "members", sample)), f"a sealed block in {where}"
    # What is left in the log is sealed under a key that is nowhere any more: none at hand opens it.
    keys = _keys_at_hand(up)
    for sealed, salt in sealed_names:
        for key in keys:
            with pytest.raises(FungiStorError):
                open_name(key, sealed, salt)


def _secrets(up: Up, cid: str, content: bytes) -> tuple[dict[str, list[bytes]], list[tuple[bytes, bytes]]]:
    """What an attacker would look for: samples by what they are, and what the log says of the object."""
    root = CID.parse(cid)
    with contextlib.closing(open_network(Home(str(up.home)))) as network:
        located = network.content.locate(root)
        manifest = located.manifest
        record = manifest.record
        wrapped = network.parts.key_table.get(record.key_id)
        assert wrapped is not None
        entries = [entry for _, entry in manifest.stored()]
        if isinstance(located.entry, Stored):
            entries.append(located.entry)
        spans = []
        for entry in entries:
            listed = manifest.slot(entry.slot)
            offset, length = listed.extent(entry.number)
            sealed = network.parts.threads.reader.read_span(listed.slot, offset, length, bytes)
            spans.append(sealed[64 : 64 + SAMPLE_BYTES])
        secrets = {
            "wrapped key": [wrapped],
            "object key": [network.content.object_key(record)],
            "block key": [entry.key for entry in entries],
            "plain content": [content[at : at + SAMPLE_BYTES] for at in range(0, len(content), 100_000)],
            "name": [NAME.encode()],
            "CID": [cid.encode(), root.digest, *(found.digest for found, _ in manifest.placed())],
            "sealed": spans,
        }
    return secrets, [(record.sealed_name, record.salt)]


def _holds(folder: Path, sample: bytes) -> Path | None:
    """The first file below a folder that has these bytes."""
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and sample in path.read_bytes():
                return path
    return None


def _keys_at_hand(up: Up) -> list[bytes]:
    """Every key that the root key opens."""
    home = Home(str(up.home))
    root = load_root_key(os.path.join(home.keys, "root.key"), {})
    with contextlib.closing(KeyTable(home.key_table)) as table:
        wrapped_tenant = table.get_tenant(TenantNumber(0))
        assert wrapped_tenant is not None
        tenant = unwrap(root, wrapped_tenant, what="tenant key", under="root key")
        wrapped = [found for key_id in table.objects() if (found := table.get(key_id)) is not None]
    return [root, tenant, *(unwrap(tenant, one) for one in wrapped)]
