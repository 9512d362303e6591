"""Hosts and names on a running network, from the command line to an answer; and, where there is one, a stock Kubo."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fungistor.node.children import wait_until
from tests.e2e.running import COMMAND_S, READY_S, Up, running
from tests.unit.names.signing import Signer
from tests.unit.objects.trees import noise

KEY = Signer(50)
FAR_S = 4_000_000_000
IPFS = shutil.which("ipfs")
BIG = noise(1, 3_000_000)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("content") / "site"
    folder.mkdir()
    (folder / "index.html").write_text("<h1>spores</h1>")
    (folder / "big.bin").write_bytes(BIG)
    (folder / "_redirects").write_text("/old /index.html 302\n")
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Iterator[tuple[Up, str]]:
    folder = tmp_path_factory.mktemp("net")
    (folder / "hosts.json").write_text('{"gw.example": {"UseSubdomains": true}}')
    with pytest.MonkeyPatch.context() as patch:
        cid = "bafybeib5lboymwd6p2eo4qb2lkueaine577flvsjjeuevmp2nlio72xv5q"
        patch.setenv("IPFS_NS_MAP", f"site.example.org:/ipns/{KEY.text},away.example.org:/ipfs/{cid}")
        with running(folder / "home", ["--members", "6", "--gateway-hosts", str(folder / "hosts.json")]) as up:
            (line,) = up.lines("publish", str(site))
            yield up, str(line["cid"])


def _get(up: Up, host: str, path: str) -> httpx.Response:
    return httpx.get(up.gateway + path, headers={"Host": host}, timeout=COMMAND_S)


def test_hosts_keys_and_websites(published: tuple[Up, str], tmp_path: Path) -> None:
    """The table, an imported record and the fixed map meet: one site under its CID, its key and its domain."""
    up, cid = published
    assert _get(up, "site.example.org", "/").status_code == 502  # its key has no record yet
    record = tmp_path / "record"
    record.write_bytes(KEY.encode(f"/ipfs/{cid}", sequence=1, expires_s=FAR_S))
    (line,) = up.lines("name", "import", KEY.text, str(record))
    assert line["value"] == f"/ipfs/{cid}"
    for host in (f"{cid}.ipfs.gw.example", f"{KEY.text}.ipns.gw.example", "site.example.org"):
        assert _get(up, host, "/").text == "<h1>spores</h1>"
        assert _get(up, host, "/old").headers["location"] == "/index.html"
    assert _get(up, "gw.example", f"/ipfs/{cid}").headers["location"] == f"http://{cid}.ipfs.gw.example/"
    assert _get(up, "away.example.org", "/").status_code == 404
    # A newer record holds from the next request on, whichever worker answers.
    record.write_bytes(KEY.encode(f"/ipfs/{cid}/index.html", sequence=2, expires_s=FAR_S))
    up.lines("name", "import", KEY.text, str(record))
    for _ in range(8):
        assert _get(up, "127.0.0.1", f"/ipns/{KEY.text}").text == "<h1>spores</h1>"


def test_names_of_the_networks_own(published: tuple[Up, str], tmp_path: Path) -> None:
    """A published name leads to its key, the key to what it means now; history and roll back are told by sequence."""
    up, cid = published
    (first,) = up.lines("name", "publish", "my-site", f"{cid}/index.html")
    (second,) = up.lines("name", "publish", "my-site", cid)
    key = str(second["key"])
    assert (first["key"], first["sequence"], second["sequence"], second["cid"]) == (key, 1, 2, cid)
    moved = _get(up, "127.0.0.1", "/ipns/my-site/old?x=1")
    assert (moved.status_code, moved.headers["location"]) == (302, f"/ipns/{key}/old?x=1")
    assert _get(up, "127.0.0.1", f"/ipns/{key}/").text == "<h1>spores</h1>"
    # On a gateway of subdomains a name is a label, and its key an origin.
    label = _get(up, "gw.example", "/ipns/my-site/").headers["location"]
    assert label == "http://my--site.ipns.gw.example/"
    assert _get(up, "my--site.ipns.gw.example", "/").headers["location"] == f"//{key}.ipns.gw.example/"
    assert _get(up, f"{key}.ipns.gw.example", "/").text == "<h1>spores</h1>"
    assert _get(up, "127.0.0.1", "/ipns/no-such-name").status_code == 400

    record = _get(up, "127.0.0.1", f"/ipns/{key}?format=ipns-record")
    assert record.content == _get(up, "127.0.0.1", f"/routing/v1/ipns/{key}").content
    assert record.headers["cache-control"] == "public, max-age=300"
    if IPFS is not None:
        (tmp_path / "record").write_bytes(record.content)
        done = subprocess.run(
            [IPFS, "name", "inspect", "--enc=json", "--verify", key, str(tmp_path / "record")],
            env=os.environ | {"IPFS_PATH": str(tmp_path / "none"), "IPFS_TELEMETRY": "off"},
            capture_output=True, text=True, timeout=COMMAND_S, check=True,
        )  # fmt: skip
        seen = json.loads(done.stdout)
        assert seen["Validation"]["Valid"] is True, seen
        assert (seen["Entry"]["Value"], seen["Entry"]["Sequence"]) == (f"/ipfs/{cid}", 2)

    (back,) = up.lines("name", "rollback", "my-site")
    assert (back["value"], back["sequence"]) == (f"/ipfs/{cid}/index.html", 3)
    assert _get(up, "127.0.0.1", f"/ipns/{key}").text == "<h1>spores</h1>"
    history = up.lines("name", "history", "my-site")
    assert [(line["sequence"], line["current"]) for line in history] == [(3, True), (2, False), (1, False)]
    assert up.lines("name", "history", key) == history
    assert ("my-site", True) in [(line["name"], line["own"]) for line in up.lines("name", "list")]
    missing = "bafybeib5lboymwd6p2eo4qb2lkueaine577flvsjjeuevmp2nlio72xv5q"
    assert up.command("name", "publish", "my-site", missing).returncode == 4
    own = tmp_path / "own"
    own.write_bytes(record.content)
    assert up.command("name", "import", key, str(own)).returncode == 6
    up.lines("name", "remove", "my-site")
    assert _get(up, "127.0.0.1", "/ipns/my-site").status_code == 400
    assert _get(up, "127.0.0.1", f"/ipns/{key}").status_code == 502
    assert up.command("name", "history", "my-site").returncode == 4


@pytest.mark.slow
@pytest.mark.skipif(IPFS is None, reason="needs ipfs on PATH")
def test_kubo_finds_and_fetches(published: tuple[Up, str], site: Path, tmp_path: Path) -> None:
    """A stock Kubo that knows nobody but our /routing/v1 fetches an object from us over HTTP, and follows our names."""
    up, cid = published
    record = tmp_path / "record"
    other = Signer(51)
    record.write_bytes(other.encode(f"/ipfs/{cid}/index.html", sequence=1, expires_s=FAR_S))
    up.lines("name", "import", other.text, str(record))
    with _kubo(tmp_path, up.gateway) as ipfs:
        ipfs("get", "-o", str(tmp_path / "got"), cid)
        assert {path.name: path.read_bytes() for path in (tmp_path / "got").iterdir()} == {
            path.name: path.read_bytes() for path in site.iterdir()
        }
        assert ipfs("name", "resolve", "--nocache", f"/ipns/{other.text}").strip() == f"/ipfs/{cid}/index.html"
        (own,) = up.lines("name", "publish", "for-kubo", cid)
        assert ipfs("name", "resolve", "--nocache", f"/ipns/{own['key']}").strip() == f"/ipfs/{cid}"


@contextlib.contextmanager
def _kubo(folder: Path, router: str) -> Iterator[Kubo]:
    kubo = Kubo(folder / "repo")
    kubo("init", "--empty-repo")
    for key, value in (
        ("Bootstrap", []),
        ("AutoConf.Enabled", False),
        ("Routing", {"Type": "autoclient", "DelegatedRouters": [router]}),
        ("DNS.Resolvers", {}),
        ("Ipns.DelegatedPublishers", []),
        ("HTTPRetrieval", {"Enabled": True}),
        ("Addresses.Swarm", []),
        ("Addresses.API", f"/ip4/127.0.0.1/tcp/{_free_port()}"),
        ("Addresses.Gateway", []),
    ):
        kubo("config", "--json", key, json.dumps(value))
    log = folder / "kubo.log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [str(IPFS), "daemon"], env=kubo.environment, stdout=file, stderr=file, start_new_session=True
        ) as daemon,
    ):
        try:
            assert wait_until(
                lambda: b"Daemon is ready" in log.read_bytes() or daemon.poll() is not None, READY_S, 0.05
            )
            assert daemon.poll() is None, log.read_text()
            yield kubo
        finally:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(COMMAND_S)
            except subprocess.TimeoutExpired:
                daemon.kill()


class Kubo:
    """The commands of one repository."""

    def __init__(self, repository: Path) -> None:
        self.environment = os.environ | {"IPFS_PATH": str(repository), "IPFS_TELEMETRY": "off"}

    def __call__(self, *words: str) -> str:
        """Run a command that must succeed, and give its output."""
        done = subprocess.run(
            [str(IPFS), *words], env=self.environment, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
