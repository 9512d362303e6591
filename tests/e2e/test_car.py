"""`car export` and `car import` on a running network: from one to the other, to Kubo and back, and with holes."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fungistor.dag import CID
from tests.e2e.running import COMMAND_S, Line, Up, running
from tests.unit.objects.cars import Dag, cid_of
from tests.unit.objects.trees import contents, noise

IPFS = shutil.which("ipfs")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("net") / "home", ["--members", "6"]) as made:
        yield made


def fetched(up: Up, path: str, span: str = "") -> tuple[int, bytes]:
    """Status and body of a request to the gateway."""
    request = urllib.request.Request(up.gateway + path, headers={"Range": f"bytes={span}"} if span else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def refusal(up: Up, code: int, *words: str) -> dict[str, str]:
    """Run a command that must end with this code, and give its error."""
    done = up.command("--json", *words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    error: dict[str, str] = json.loads(done.stderr)["error"]
    return error


def some_tree(folder: Path) -> Path:
    """A tree with large, small and empty files, a symbolic link and an empty folder."""
    (folder / "sub/empty").mkdir(parents=True)
    (folder / "large").write_bytes(noise(1, 3_000_000))
    (folder / "sub/small").write_bytes(b"spore\n")
    (folder / "sub/nothing").write_bytes(b"")
    (folder / "sub/link").symlink_to("small")
    return folder


def test_a_tree_goes_out_and_comes_in(up: Up, tmp_path: Path) -> None:
    """Published, exported, imported into a second network and read there; JSON lines have the keys of docs/cli.md."""
    tree = some_tree(tmp_path / "tree")
    [published] = up.lines("publish", str(tree))
    cid = str(published["cid"])
    car = tmp_path / "tree.car"
    [exported] = up.lines("car", "export", cid, "-o", str(car))
    assert exported.keys() >= {"cid", "blocks", "bytes"}
    assert exported["bytes"] == car.stat().st_size
    with running(tmp_path / "second", ["--members", "5"]) as second:
        [loaded] = second.lines("car", "import", str(car))
        assert loaded.keys() >= {"cid", "blocks", "bytes"}
        assert (loaded["cid"], loaded["blocks"], loaded["size"]) == (cid, exported["blocks"], published["size"])
        second.lines("get", cid, "-o", str(tmp_path / "out"))
        assert contents(tmp_path / "out") == contents(tree)
        second.lines("verify", cid)
        plain = second.command("car", "import", str(car))
        assert (plain.returncode, plain.stdout) == (0, f"{cid}\n"), plain.stderr
        streamed = subprocess.run(
            [sys.executable, "-m", "fungistor.node", "--home", str(second.home), "car", "export", cid, "-o", "-"],
            capture_output=True, timeout=COMMAND_S, check=True,
        )  # fmt: skip
        assert streamed.stdout == car.read_bytes()


def test_an_export_never_overwrites_unasked(up: Up, tmp_path: Path) -> None:
    """What is at F stays without --force; with a CID that nobody has nothing is left at F."""
    (tmp_path / "f").write_bytes(noise(5, 20_000))
    [published] = up.lines("publish", str(tmp_path / "f"))
    cid = str(published["cid"])
    target = tmp_path / "room" / "f.car"
    target.parent.mkdir()
    target.write_bytes(b"mine")
    assert "exists already" in refusal(up, 2, "car", "export", cid, "-o", str(target))["message"]
    assert target.read_bytes() == b"mine"
    up.lines("car", "export", cid, "-o", str(target), "--force")
    assert target.stat().st_size > 20_000
    target.unlink()
    unknown = str(cid_of(b"nobody has this"))
    assert refusal(up, 4, "car", "export", unknown, "-o", str(target))["kind"] == "not_found"
    assert os.listdir(target.parent) == []


def test_a_partial_dag_is_served_where_it_is(up: Up, tmp_path: Path) -> None:
    """Refused without --partial by the missing CID; with it the gateway serves present ranges, and names the hole."""
    parts = [noise(number + 10, 60_000) for number in range(3)]
    dag = Dag()
    file = dag.file(parts)
    root = dag.folder([(b"three", file)])
    lost = cid_of(parts[1])
    car = dag.write(tmp_path / "hole.car", root, without=[lost])
    assert str(lost) in refusal(up, 2, "car", "import", car)["message"]
    assert refusal(up, 4, "stat", str(root))["kind"] == "not_found"
    [loaded] = up.lines("car", "import", "--partial", car)
    assert (loaded["cid"], loaded["blocks"], loaded["missing"]) == (str(root), 4, 1)
    path = f"/ipfs/{root}/three"
    assert fetched(up, path, "0-59999") == (206, parts[0])
    assert fetched(up, path, "120000-120010") == (206, parts[2][:11])
    assert fetched(up, f"/ipfs/{file}", "130000-") == (206, parts[2][10_000:])
    for hole in (fetched(up, path, "60000-60001"), fetched(up, f"/ipfs/{lost}")):
        assert hole[0] == 404
        assert str(lost).encode() in hole[1]
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        fetched(up, path, "0-60010")  # broken off where the hole begins: never a clean end
    assert f"block {lost} is missing" in refusal(up, 4, "get", str(root), "-o", str(tmp_path / "out"))["message"]
    assert not (tmp_path / "out").exists()
    assert [line["type"] for line in up.lines("ls", str(root))] == ["file"]
    [whole] = up.lines("car", "import", dag.write(tmp_path / "whole.car", root))
    assert whole["missing"] == 0
    assert fetched(up, path) == (200, b"".join(parts))


def test_blocks_that_are_no_files(up: Up, tmp_path: Path) -> None:
    """`cat` of a dag-cbor root gives its block, `stat` says what it is, `get` refuses; paths follow its links."""
    dag = Dag()
    leaf = dag.put(noise(30, 20_000))
    root = dag.list([dag.folder([(b"name", leaf)])])
    up.lines("car", "import", dag.write(tmp_path / "c.car", root))
    done = subprocess.run(
        [sys.executable, "-m", "fungistor.node", "--home", str(up.home), "cat", str(root)],
        capture_output=True, timeout=COMMAND_S, check=True,
    )  # fmt: skip
    assert done.stdout == dag.blocks[root]
    [stat] = up.lines("stat", str(root))
    assert (stat["type"], stat["size"]) == ("block", sum(map(len, dag.blocks.values())))
    assert "holds no UnixFS" in refusal(up, 2, "get", str(root), "-o", str(tmp_path / "out"))["message"]
    assert [line["name"] for line in up.lines("ls", f"{root}/0")] == ["name"]
    status, body = fetched(up, f"/ipfs/{root}?format=raw")
    assert (status, body) == (200, dag.blocks[root])


def test_refused_files_and_names(up: Up, tmp_path: Path) -> None:
    """A damaged CAR is exit 2 and no object; evil names import, and `get` writes nothing and ends with 2."""
    before = len(up.lines("objects"))
    dag = Dag()
    victim = tmp_path / "victim"
    victim.mkdir()
    payload = dag.put(b"evil" * 20)
    roots = [
        dag.folder([(name, payload)]) for name in (b"..", b"a/b", b"../victim/x", b"a\0b", os.fsencode(victim / "x"))
    ]
    below_link = [(b"l", dag.symlink(os.fsencode(victim))), (b"l", dag.folder([(b"x", payload)]))]
    roots.append(dag.folder(below_link))
    car = Path(dag.write(tmp_path / "evil.car", *roots))
    damaged = tmp_path / "damaged.car"
    damaged.write_bytes(car.read_bytes()[:-1] + b"?")
    assert "does not match its hash" in refusal(up, 2, "car", "import", str(damaged))["message"]
    assert "names no roots" in refusal(up, 2, "car", "import", dag.write(tmp_path / "none.car"))["message"]
    assert len(up.lines("objects")) == before
    assert len(up.lines("car", "import", str(car))) == len(roots)
    room = tmp_path / "room"
    room.mkdir()
    for root in roots:
        refusal(up, 2, "get", str(root), "-o", str(room / "out"))
        assert os.listdir(room) == os.listdir(victim) == []


def test_strays_are_told_on_stderr(up: Up, tmp_path: Path) -> None:
    """Blocks that no root reaches are counted for a person."""
    dag = Dag()
    root = dag.put(noise(40, 20_000))
    dag.put(b"stray")
    done = up.command("car", "import", dag.write(tmp_path / "s.car", root))
    assert (done.returncode, done.stdout) == (0, f"{root}\n")
    assert "1 block is left out: no root leads there" in done.stderr


Ipfs = Callable[..., bytes]


@pytest.fixture
def ipfs(tmp_path: Path) -> Ipfs:
    """Run a command of Kubo on a repository of its own."""
    if IPFS is None:
        pytest.skip("no `ipfs` on PATH")
    environment = {**os.environ, "IPFS_PATH": str(tmp_path / "kubo"), "IPFS_TELEMETRY": "off"}
    binary = IPFS

    def run(*words: str, text: bytes = b"") -> bytes:
        done = subprocess.run(
            [binary, *words], env=environment, input=text, capture_output=True, timeout=COMMAND_S, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    run("init", "-e")
    return run


@pytest.mark.parametrize("kind", ["v0", "v1", "dag-cbor"])
def test_from_kubo_and_back(up: Up, tmp_path: Path, ipfs: Ipfs, kind: str) -> None:
    """What Kubo exports is imported and exported again to the same bytes."""
    tree = some_tree(tmp_path / "tree")
    (tree / "another").write_bytes(noise(len(kind) + 60, 700_000))
    root = ipfs("add", "-rQ", *(["--cid-version=1"] if kind == "v1" else []), str(tree)).decode().strip()
    if kind == "dag-cbor":
        document = json.dumps({"a": {"/": root}, "b": [1, {"/": root}]}).encode()
        root = ipfs("dag", "put", text=document).decode().strip()
    car = tmp_path / "kubo.car"
    car.write_bytes(ipfs("dag", "export", "--offline", root))
    [loaded] = up.lines("car", "import", str(car))
    assert (loaded["cid"], loaded["left_out"]) == (root, 0)
    [exported] = up.lines("car", "export", root, "-o", str(tmp_path / "ours.car"))
    assert exported["blocks"] == loaded["blocks"]
    assert (tmp_path / "ours.car").read_bytes() == car.read_bytes()


def test_kubo_takes_what_we_export(up: Up, tmp_path: Path, ipfs: Ipfs) -> None:
    """Our CAR of a published tree goes into an empty Kubo, which has every block and reads the files."""
    tree = some_tree(tmp_path / "tree")
    [published] = up.lines("publish", str(tree))
    cid = str(published["cid"])
    [exported] = up.lines("car", "export", cid, "-o", str(tmp_path / "f.car"))
    said: Line = {}
    for line in ipfs("dag", "import", "--stats", "--enc=json", str(tmp_path / "f.car")).splitlines():
        said |= json.loads(line)
    assert CID.parse(said["Root"]["Cid"]["/"]) == CID.parse(cid)  # type: ignore[index]
    assert said["Stats"]["BlockCount"] == exported["blocks"]  # type: ignore[index]
    ipfs("get", "--offline", cid, "-o", str(tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(tree)
