"""Tenants on a running network: what one has the others do not find, by any command and any form of request."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from fungistor.node.children import wait_until
from tests.e2e.running import COMMAND_S, READY_S, Up, running
from tests.unit.objects.trees import noise

SHARED = noise(3, 200_000)
SECRET = noise(4, 300_000)
ABSENT = "bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaq"


@dataclass(slots=True)
class World:
    """A network with a tenant `museum`, its private folder, a public file that shares a block, and tokens."""

    up: Up
    folder: Path
    root: str
    shared: str
    tokens: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, token: str | None = None, method: str = "GET", **fields: str) -> httpx.Response:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if token is not None:
            headers["Authorization"] = f"Bearer {self.tokens.get(token, token)}"
        return httpx.request(method, self.up.gateway + path, headers=headers, timeout=COMMAND_S)

    def told(self, answer: httpx.Response, cid: str) -> tuple[object, ...]:
        """What a client learns, without what it said itself and what is of the request alone."""
        text = re.sub(r"request [0-9a-f]+", "request", answer.text).replace(cid, "CID")
        kept = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
        if "content-length" in kept:
            kept["content-length"] = str(len(answer.text.replace(cid, "CID")))
        return answer.status_code, text, kept


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("tenants")
    site = folder / "site"
    (site / "a").mkdir(parents=True)
    (site / "a" / "secret.bin").write_bytes(SECRET)
    (site / "a" / "shared.bin").write_bytes(SHARED)
    (site / "note.txt").write_text("for the museum alone")
    (folder / "shared.bin").write_bytes(SHARED)
    (folder / "hosts.json").write_text('{"gw.example": {"UseSubdomains": true}}')
    home = folder / "home"
    home.mkdir(mode=0o700)
    (home / "gateway.toml").write_text("[log]\naccess = true\n")
    with pytest.MonkeyPatch.context() as patch:
        only_hash = Up(None, home, home, home, {})  # type: ignore[arg-type]
        (line,) = only_hash.lines("publish", "--only-hash", str(site))
        root = str(line["cid"])
        patch.setenv("IPFS_NS_MAP", f"site.example.org:/ipfs/{root}")
        options = ["--members", "6", "--no-sync", "--gateway-hosts", str(folder / "hosts.json")]
        with running(home, options) as up:
            for name in ("museum", "archive"):
                up.lines("tenant", "add", name)
            (line,) = up.lines("publish", str(site), "--tenant", "museum", "--private")
            assert line["cid"] == root
            (line,) = up.lines("publish", str(folder / "shared.bin"))
            made = World(up, folder, root, str(line["cid"]))
            for name, words in {
                "museum": ("museum", "--scopes", "read,publish"),
                "archive": ("archive", "--scopes", "read"),
                "writer": ("museum", "--scopes", "publish"),
            }.items():
                (line,) = up.lines("token", "add", "--tenant", *words)
                made.tokens[name] = str(line["token"])
            yield made


def test_a_private_object_is_there_for_its_tenant_s_token_alone(world: World) -> None:
    """By path, host and name, in every form, whole and in part: for all others it is as what is not stored."""
    root = world.root
    (name,) = world.up.lines("name", "publish", "news", root, "--tenant", "museum")
    leaf = world.up.lines("ls", f"{root}/a", "--tenant", "museum")[0]["cid"]
    forms = [
        (f"/ipfs/{root}/", {}),
        (f"/ipfs/{root}/note.txt", {}),
        (f"/ipfs/{root}/a/secret.bin", {"Range": "bytes=0-9"}),
        (f"/ipfs/{root}?format=raw", {}),
        (f"/ipfs/{root}?format=car", {}),
        (f"/ipfs/{root}?format=tar", {}),
        (f"/ipfs/{root}/a/?format=json", {}),
        (f"/ipfs/{root}", {"Accept": "application/vnd.ipld.car"}),
        (f"/ipfs/{leaf}", {}),
        (f"/ipns/{name['key']}/note.txt", {}),
        ("/note.txt", {"Host": f"{root}.ipfs.gw.example"}),
        ("/note.txt", {"Host": "site.example.org"}),
    ]
    for path, fields in forms:
        for method in ("GET", "HEAD"):
            for token in (None, "archive"):
                hidden = world.get(path, token, method, **fields)
                assert hidden.status_code == 404, (path, method, token)
                assert hidden.headers["cache-control"] == "no-store"
                assert "etag" not in hidden.headers
            given = world.get(path, "museum", method, **fields)
            assert given.status_code in (200, 206), (path, given.text)
            assert given.headers["cache-control"] == "private, no-cache", path
            assert "Authorization" in given.headers["vary"]
        # What was given to one is kept for nobody else, and no tag tells that it is there.
        etag = given.headers.get("etag", "*")
        assert world.get(path, **fields).status_code == 404
        assert world.get(path, None, **{**fields, "If_None_Match": etag}).status_code == 404
        assert world.get(path, "museum", **{**fields, "If_None_Match": etag}).status_code in (304, 206)
    record = f"/ipns/{name['key']}?format=ipns-record"
    assert world.get(record).status_code == 502  # as of a key that nobody here knows
    assert world.get(record, "museum").headers["cache-control"] == "private, no-cache"
    assert b"/ipfs/" not in world.get(f"/routing/v1/ipns/{name['key']}").content
    assert world.get(f"/ipfs/{root}", None, Cache_Control="only-if-cached").status_code == 412
    for token in (None, "museum"):
        assert world.get(f"/routing/v1/providers/{root}", token).json() == {"Providers": []}
    assert world.told(world.get(f"/ipfs/{root}/note.txt"), root) == world.told(
        world.get(f"/ipfs/{ABSENT}/note.txt"), ABSENT
    )


def test_a_block_of_a_public_object_too_is_found_by_that_one(world: World) -> None:
    """Its own CID and the public object's give it to anybody; the way through the private folder stays shut."""
    public = world.get(f"/ipfs/{world.shared}")
    assert public.content == SHARED
    assert "public" in public.headers["cache-control"]
    inside = world.up.lines("ls", f"{world.root}/a", "--tenant", "museum")
    shared, secret = (
        next(str(e["cid"]) for e in inside if e["name"] == f"{name}.bin") for name in ("shared", "secret")
    )
    assert shared == world.shared
    assert world.get(f"/ipfs/{shared}?format=raw").status_code == 200
    assert world.get(f"/ipfs/{secret}?format=raw").status_code == 404
    assert world.get(f"/ipfs/{world.root}/a/shared.bin").status_code == 404
    assert world.get(f"/ipfs/{world.root}/a/shared.bin", "museum").content == SHARED


def test_a_token_that_is_no_good_is_refused_whatever_it_is_shown_for(world: World) -> None:
    """Forged, garbled, revoked and expired ones are 401, one that may not read is 403, for what is there and not."""
    good = world.tokens["museum"]
    (ended,) = world.up.lines("token", "add", "--tenant", "museum", "--expires", "1s")
    (gone,) = world.up.lines("token", "add", "--tenant", "museum")
    world.up.lines("token", "revoke", str(gone["id"]), "--tenant", "museum")
    assert world.up.command("token", "revoke", good, "--tenant", "archive").returncode == 4
    path = f"/ipfs/{world.root}/note.txt"
    assert wait_until(lambda: world.get(path, str(ended["token"])).status_code == 401, READY_S, 0.05)
    forged = [good[:-1] + ("A" if good[-1] != "A" else "B"), good[:21], "fst_x", str(gone["token"])]
    for token in forged:
        answers = [world.get(f"/ipfs/{cid}", token) for cid in (world.root, world.shared, ABSENT)]
        assert [a.status_code for a in answers] == [401, 401, 401], token
        assert answers[0].headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert world.get(path, "writer").status_code == 403
    assert world.get(path, "museum").text == "for the museum alone"


def test_a_link_opens_one_path_in_one_form_until_it_ends(world: World) -> None:
    """Altered in any part, shown for another path, form or CID, expired or after the key's rotation, it is no link."""
    root = world.root
    (made,) = world.up.lines("link", f"{root}/note.txt", "--expires", "1h", "--tenant", "museum")
    url = str(made["url"]).removeprefix(world.up.gateway)
    path, _, query = url.partition("?")
    assert path == f"/ipfs/{root}/note.txt"
    given = world.get(url)
    assert given.text == "for the museum alone"
    assert (given.headers["cache-control"], given.headers["referrer-policy"]) == ("private, no-cache", "no-referrer")
    assert world.get(url, None, "HEAD").status_code == 200
    assert world.get(f"{url}&download=true").status_code == 200
    assert world.get(f"/note.txt?{query}", None, Host=f"{root}.ipfs.gw.example").status_code == 200
    end = str(made["expires"])
    altered = [
        path,
        f"/ipfs/{root}/?{query}",
        f"/ipfs/{root}/a/secret.bin?{query}",
        f"/ipfs/{ABSENT}?{query}",
        f"{path}?{query.replace(end, str(int(end) + 1))}",
        f"{path}?{query[:-1]}",
        f"{path}?{query[:-2]}{'AA' if query[-2:] != 'AA' else 'BB'}",
        f"{path}?{query.replace('sig=', 'sig=AAAA')}",
        f"{path}?exp=&sig=",
        f"{path}?exp=99999999999999999999&sig={query.rpartition('=')[2]}",
        f"{path}?format=raw&{query}",
        f"{path}?format=car&{query}",
    ]
    for other in altered:
        assert world.get(other).status_code == 404, other
    assert world.get(url, None, Accept="application/vnd.ipld.car").status_code == 404
    (car,) = world.up.lines("link", root, "--path", "a", "--format", "car", "--expires", "1h", "--tenant", "museum")
    shown = str(car["url"]).removeprefix(world.up.gateway)
    assert world.get(shown).status_code == 200
    assert world.get(shown.replace("format=car&", "")).status_code == 404
    (brief,) = world.up.lines("link", root, "--expires", "1s", "--tenant", "museum")
    short = str(brief["url"]).removeprefix(world.up.gateway)
    assert wait_until(lambda: world.get(short).status_code == 404, READY_S, 0.05)
    assert world.up.command("link", root, "--expires", "1h").returncode == 4  # of another tenant
    world.up.lines("tenant", "revoke-links", "museum")
    assert wait_until(lambda: world.get(url).status_code == 404, READY_S, 0.05)
    logged = world.up.log.read_text()
    assert "/note.txt" in logged
    for secret in (query.rpartition("=")[2], *(token.rpartition("_")[2] for token in world.tokens.values())):
        assert secret not in logged


def test_an_object_that_is_made_private_is_public_no_more(world: World) -> None:
    """Hot answers of it go with the next look at the catalog; published again without a word it stays so."""
    file = world.folder / "turned.txt"
    file.write_text("seen for a while")
    (line,) = world.up.lines("publish", str(file))
    path = f"/ipfs/{line['cid']}"
    for _ in range(4):
        assert world.get(path).status_code == 200
    world.up.lines("publish", str(file), "--private")
    assert wait_until(lambda: world.get(path).status_code == 404, READY_S, 0.05)
    world.up.lines("publish", str(file))
    assert world.get(path).status_code == 404
    world.up.lines("publish", str(file), "--public")
    assert world.get(path).status_code == 200


def test_commands_speak_of_one_tenant(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without its token or name, a tenant's objects, names and log are not there; a token covers its scopes alone."""
    root, up = world.root, world.up
    for words in (("stat", root), ("ls", root), ("cat", f"{root}/note.txt"), ("verify", root), ("unpublish", root)):
        assert up.command(*words).returncode == 4, words
    assert up.command("cat", f"{root}/note.txt", "--tenant", "archive").returncode == 4
    assert up.command("get", root, "-o", str(tmp_path / "copy")).returncode == 4
    assert root not in {line["cid"] for line in up.lines("objects")}
    (stat,) = up.lines("stat", root, "--tenant", "museum")
    assert stat["private"] is True
    token_file = tmp_path / "token"
    token_file.write_text(world.tokens["museum"])
    monkeypatch.setenv("FUNGISTOR_TOKEN_FILE", str(token_file))
    assert up.command("objects").returncode == 5  # others can read the file
    token_file.chmod(0o600)
    assert [line["cid"] for line in up.lines("objects")] == [root]
    assert {line["tenant"] for line in up.lines("log")} == {1}
    assert up.command("objects", "--tenant", "archive").returncode == 4
    assert up.command("objects", "--tenant", "nobody").returncode == 4
    assert up.command("unpublish", root).returncode == 5
    for text in ("gc", "tenant list", "token list"):
        assert up.command(*text.split()).returncode == 5, text
    (shown,) = up.lines("tenant", "show")
    assert (shown["tenant"], shown["objects"]) == ("museum", 1)
    monkeypatch.delenv("FUNGISTOR_TOKEN_FILE")
    monkeypatch.setenv("FUNGISTOR_TOKEN", world.tokens["archive"])
    assert up.command("cat", f"{root}/note.txt").returncode == 4
    assert up.lines("log") == [line for line in up.lines("log") if line["tenant"] == 2]


def test_a_quota_refuses_before_anything_is_stored(world: World, tmp_path: Path) -> None:
    """Too much is exit 5 and costs members nothing; what the tenant has goes through; what it takes back is room."""
    up = world.up
    (before,) = up.lines("tenant", "quota", "archive", "--bytes", "400k", "--objects", "2")
    assert before["bytes"] == 0
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(noise(7, 300_000))
    second.write_bytes(noise(8, 150_000))
    (line,) = up.lines("publish", str(first), "--tenant", "archive")
    refused = up.command("publish", str(second), "--tenant", "archive")
    assert refused.returncode == 5
    assert "300000 of 400000 bytes" in refused.stderr
    assert not any(os.scandir(world.up.home / "journal"))
    assert up.lines("publish", str(first), "--tenant", "archive", "--name", "again")[0]["new"] == 0
    (told,) = up.lines("tenant", "show", "archive")
    assert (told["bytes"], told["objects"]) == (300_000, 1)
    assert up.command("tenant", "remove", "archive").returncode == 6
    up.lines("unpublish", str(line["cid"]), "--tenant", "archive")
    (told,) = up.lines("tenant", "show", "archive")
    assert (told["bytes"], told["objects"], told["stored"]) == (0, 0, 0)
