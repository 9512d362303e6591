"""A network with something of everything, for tests in which its home is lost and rebuilt from its members."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from fungistor.node.copies.formats import CopyFormats
from fungistor.node.home import Home
from fungistor.node.wiring import open_catalog
from tests.e2e.pool_world import PASSWORD, Members
from tests.e2e.running import COMMAND_S, Line, Up
from tests.unit.objects.trees import noise

LOST = 4
OWN, MUSEUM = "0", "museum"
NOT_COMPARED = {"progress", "digest", "issuer", "node_report", "outcome"}
"""Tables of where a node stands, and those that tell of nodes: the one that rebuilds is let in as another."""
State = dict[str, set[tuple[object, ...]]]


@dataclass(slots=True)
class Network:
    """What was published, and what was acknowledged last."""

    folder: Path
    up: Up
    contents: dict[str, dict[str, bytes]] = field(default_factory=lambda: {OWN: {}, MUSEUM: {}})
    gone: dict[str, list[str]] = field(default_factory=lambda: {OWN: [], MUSEUM: []})
    policy: tuple[str, ...] = ("--k", "8", "--m", "4")
    token: str = ""
    revision: int = 0

    def publish(self, tenant: str, sizes: dict[str, int], *words: str) -> list[str]:
        """Publish files by one command; each must survive what is going to happen."""
        for name, size in sizes.items():
            (self.folder / name).write_bytes(noise(sum(name.encode()) + size, size))
        paths = [str(self.folder / name) for name in sizes]
        lines = self.up.lines("publish", *paths, "--tenant", tenant, *words)
        for line in lines:
            assert (line["survives"], line["owed"]) == (LOST, 0), line
            self.contents[tenant][str(line["cid"])] = (self.folder / str(line["name"])).read_bytes()
            self.revision = max(self.revision, int(str(line["revision"])))
        return [str(line["cid"]) for line in lines]

    def unpublish(self, tenant: str, cid: str) -> None:
        self.up.lines("unpublish", cid, "--tenant", tenant)
        del self.contents[tenant][cid]
        self.gone[tenant].append(cid)


def state_of(home: Path) -> State:
    """Every row that commands wrote, by table."""
    with closing(sqlite3.connect(f"file:{home / 'catalog' / 'state.sqlite'}?mode=ro", uri=True)) as state:
        tables = [name for (name,) in state.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: set(state.execute(f"SELECT * FROM {name}")) for name in tables if name not in NOT_COMPARED}


def commands(home: Path) -> Up:
    """Runs commands in a home in which nothing else runs."""
    return Up(None, home, home, home, {})  # type: ignore[arg-type]


def given_root(home: Path, root: bytes) -> Path:
    """A home with nothing but the root key."""
    (home / "keys").mkdir(mode=0o700, parents=True)
    home.chmod(0o700)
    (home / "keys" / "root.key").write_bytes(root)
    (home / "keys" / "root.key").chmod(0o600)
    return home


def told(home: Path) -> list[list[Line]]:
    """What a user is told, without what depends on who answers now."""
    up = commands(home)
    words = [(what, "--tenant", tenant) for tenant in (OWN, MUSEUM) for what in ("objects", "name history site")]
    answers = [up.lines(*what.split(), *rest) for what, *rest in words]
    return [[{key: line[key] for key in line if "survives" not in key} for line in lines] for lines in answers]


def key_names(home: Path) -> tuple[set[bytes], set[bytes]]:
    """Under which names members have the keys of what stands, and had those of what was unpublished."""
    with open_catalog(Home(str(home))) as (catalog, keys, _):
        formats = CopyFormats(keys.network_key)
        return (
            {formats.key_name(record.key_id) for record in catalog.records()},
            {formats.key_name(gone.record.key_id) for gone in catalog.removal.retired()},
        )


def holders(world: Members, names: set[bytes]) -> list[str]:
    """Members that give a value under any of these names."""
    found = []
    for member, daemon in sorted(world.daemons.items()):
        client = daemon.client()
        assert client.call("SELECT", "pool", PASSWORD) == b"OK"
        if any(client.call("EXISTS", name) == 1 for name in sorted(names)):
            found.append(member)
    return found


def day_one(network: Network) -> None:
    up = network.up
    up.lines("policy", "add", "wide", *network.policy)
    up.lines("tenant", "add", MUSEUM, "--bytes", "10M", "--objects", "50")
    [token] = up.lines("token", "add", "--tenant", MUSEUM, "--scopes", "read,publish")
    network.token = str(token["token"])
    first, _, gone = network.publish(OWN, {"first": 4_000, "old-large": 1_500_000, "gone": 30_000})
    network.publish(OWN, {"by-policy": 200_000}, "--policy", "wide")
    network.publish(MUSEUM, {"exhibit": 90_000, "first": 4_000, "hidden": 10_000}, "--private")
    up.lines("name", "publish", "site", first)
    up.lines("name", "publish", "site", first, "--tenant", MUSEUM)
    network.gone[OWN].append(gone)


def day_two(network: Network, count: int) -> None:
    """What the member that is away does not hear of; the last line is the last acknowledgement."""
    up = network.up
    gone = network.gone[OWN].pop()
    large, *_ = network.publish(OWN, {"new-large": 1_200_000, **{f"new{at}": 5_000 + 900 * at for at in range(count)}})
    network.publish(OWN, {"new-by-policy": 150_000}, "--policy", "wide")
    exhibit, late = network.publish(MUSEUM, {"new-exhibit": 70_000, "late": 2_000}, "--private")
    up.lines("name", "publish", "site", large)
    up.lines("name", "publish", "site", exhibit, "--tenant", MUSEUM)
    network.unpublish(OWN, gone)
    network.unpublish(MUSEUM, late)
    network.publish(OWN, {"last": 40_000})


def check(network: Network, up: Up, out: Path, *, by_command: bool) -> None:
    """Every byte reads at the gateway, and of all objects, or of some of each tenant, by the command line too; what was
    unpublished and what is private does not."""
    shown = {"Authorization": f"Bearer {network.token}"}
    for tenant, contents in network.contents.items():
        fields = shown if tenant == MUSEUM else {}
        for cid, content in contents.items():
            assert httpx.get(f"{up.gateway}/ipfs/{cid}", headers=fields, timeout=COMMAND_S).content == content, cid
        for cid in list(contents)[:: 1 if by_command else 4]:
            got = up.command("get", cid, "-o", str(out), "--force", "--no-cache", "--tenant", tenant)
            assert (got.returncode, out.read_bytes() == contents[cid]) == (0, True), (tenant, cid, got.stderr)
        for cid in network.gone[tenant]:
            assert httpx.get(f"{up.gateway}/ipfs/{cid}", headers=fields, timeout=COMMAND_S).status_code == 404
    for cid in network.contents[MUSEUM].keys() - network.contents[OWN].keys():
        assert httpx.get(f"{up.gateway}/ipfs/{cid}", timeout=COMMAND_S).status_code == 404


def killed(up: Up) -> None:
    """The whole process group at once, as when a machine loses its power."""
    if up.process.poll() is None:
        os.killpg(up.process.pid, signal.SIGKILL)
        up.process.wait()
