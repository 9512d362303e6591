"""A real zdbfs mounted on three namespaces of our member daemon. Skipped where `zdbfs` or FUSE is not there."""

from __future__ import annotations

import filecmp
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fungistor.node.children import wait_until
from tests.unit.zdb_daemon.harness import Daemon, daemon

ZDBFS = shutil.which("zdbfs")
MOUNTED_S = 20.0


@contextmanager
def mounted(server: Daemon, point: Path) -> Iterator[None]:
    """zdbfs on that daemon; it makes its namespaces itself. Unmounted after it, and waited for."""
    assert ZDBFS is not None
    host, _, port = server.address.rpartition(":")
    with (point.parent / "zdbfs.log").open("ab") as log:
        words = [ZDBFS, "-f", "-o", f"host={host},port={port},autons", str(point)]
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        assert wait_until(lambda: os.path.ismount(point) or process.poll() is not None, MOUNTED_S, 0.02)
        assert process.poll() is None, (point.parent / "zdbfs.log").read_text()
        yield
    finally:
        subprocess.run(["umount", str(point)], capture_output=True, check=False)
        assert process.wait(MOUNTED_S) == 0


@pytest.mark.slow
@pytest.mark.skipif(ZDBFS is None or not os.access("/dev/fuse", os.W_OK), reason="zdbfs or /dev/fuse is not here")
@pytest.mark.parametrize("compacted", [False, True], ids=["as-is", "compacted"])
def test_zdbfs_keeps_a_tree(tmp_path: Path, compacted: bool) -> None:
    """A tree of files, folders and links, copied in, moved about, appended to and partly removed, is the same after the
    file system was unmounted, the daemon restarted (and its namespaces compacted), and all mounted again."""
    chance, source, point = random.Random(4), tmp_path / "source", tmp_path / "mnt"
    point.mkdir()
    for number in range(150):
        path = source / f"d{number % 7}" / f"e{number % 3}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.choice((0, 10, 4000, 200_000))))
    (source / "large").write_bytes(chance.randbytes(9_000_000))
    (source / "link").symlink_to("d1/e1")
    with daemon(tmp_path / "home", "--datasize", "1M") as server:
        with mounted(server, point):
            shutil.copytree(source, point / "tree", symlinks=True)
            for root in (source, point / "tree"):
                (root / "d1" / "e1" / "f1").rename(root / "d2" / "moved")
                shutil.rmtree(root / "d3")
                with (root / "d0" / "e0" / "f0").open("ab") as file:
                    file.write(b"more of it")
                (root / "large").write_bytes(b"small now")
        assert server.stop() == 0
    with daemon(tmp_path / "home", "--datasize", "1M") as server:
        if compacted:
            client = server.client()
            dropped = 0
            for space, password in (("zdbfs-meta", []), ("zdbfs-data", []), ("zdbfs-temp", ["hello"])):
                assert client.call("SELECT", space, *password) == b"OK"
                outcome = client.call("COMPACT", "1")
                assert isinstance(outcome, list) and isinstance(outcome[0], int)
                dropped += outcome[0]
            assert dropped > 0
        with mounted(server, point):
            assert same(source, point / "tree") > 120
        assert server.stop() == 0


def same(one: Path, other: Path) -> int:
    """Compare two trees, names and bytes; how many files there are."""
    found = {str(path.relative_to(one)) for path in one.rglob("*")}
    assert {str(path.relative_to(other)) for path in other.rglob("*")} == found
    for name in found:
        assert (one / name).is_symlink() == (other / name).is_symlink()
        if (one / name).is_file() and not (one / name).is_symlink():
            assert filecmp.cmp(one / name, other / name, shallow=False), name
    return len(found)
