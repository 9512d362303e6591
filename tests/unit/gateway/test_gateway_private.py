"""Private objects at the gateway: who is let in, and what of an answer may be kept by whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from fungistor.dag.cid import CID
from fungistor.errors import DeniedError
from fungistor.ids import TenantNumber
from fungistor.objects.bearers import BadTokenError
from fungistor.testing.memory_content import MemoryContent
from gateway.operations.identity import masked, without_signature
from tests.unit.gateway.live import Live, serving

MUSEUM = TenantNumber(7)
NOT_THERE = "bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaq"


@dataclass
class Doors:
    """One good token, one that may not read, and links that are right for what they were asked with."""

    asked: list[tuple[str, tuple[bytes, ...], str, int, str]] = field(default_factory=list)

    def of_token(self, text: str) -> TenantNumber:
        if text == "fst_writer":
            raise DeniedError("the token has not the scope read")
        if text != "fst_museum":
            raise BadTokenError("the token is no good")
        return MUSEUM

    def of_link(
        self, root: CID, names: tuple[bytes, ...], form: str, expires: int, signature: str
    ) -> TenantNumber | None:
        self.asked.append((str(root), names, form, expires, signature))
        return MUSEUM if (names, form, expires, signature) == ((b"b c",), "", 99, "good") else None


@pytest.fixture(scope="module")
def museum() -> Iterator[tuple[Live, str, Doors]]:
    content, doors = MemoryContent(), Doors()
    root = content.add_tree({"b c": b"for the museum alone", "index": {"x": b"1"}}).cid
    content.private[root.multihash] = MUSEUM
    with serving(content, tenants=doors) as live:
        yield live, str(root), doors


def test_a_token_opens_what_is_its_tenant_s_and_marks_the_answer(museum: tuple[Live, str, Doors]) -> None:
    """200 and 304 are the reader's own; anybody else gets the 404 of what is not there, before and after."""
    live, root, _ = museum
    path = f"/ipfs/{root}/b%20c"
    for _ in range(3):
        assert live.get(path).status_code == 404
        given = live.get(path, Authorization="bearer fst_museum")
        assert given.content == b"for the museum alone"
        assert given.headers["cache-control"] == "private, no-cache"
        assert given.headers["vary"].endswith("Authorization")
        again = live.get(path, Authorization="Bearer fst_museum", If_None_Match=given.headers["etag"])
        assert (again.status_code, again.headers["cache-control"]) == (304, "private, no-cache")
        assert live.get(path, If_None_Match=given.headers["etag"]).status_code == 404
    moved = live.get(f"/ipfs/{root}/index", Authorization="Bearer fst_museum")
    assert (moved.status_code, moved.headers["cache-control"]) == (301, "private, no-cache")


@pytest.mark.parametrize(("token", "status"), [("fst_other", 401), ("fst_writer", 403)])
def test_a_token_that_is_no_good_says_nothing_of_what_there_is(
    museum: tuple[Live, str, Doors], token: str, status: int
) -> None:
    """The same answer for a private CID and one that nobody has; other kinds of authorization are not ours to judge."""
    live, root, _ = museum
    for cid in (root, NOT_THERE):
        answer = live.get(f"/ipfs/{cid}", Authorization=f"Bearer {token}")
        assert answer.status_code == status
        assert answer.headers["www-authenticate"].startswith("Bearer error=")
        assert answer.headers["cache-control"] == "no-store"
        assert cid not in answer.text
    for other in ("Basic abc", "Bearer abc", "fst_museum", "Bearer fst_museum extra"):
        assert live.get(f"/ipfs/{root}", Authorization=other).status_code == 404


def test_a_link_is_asked_about_with_all_that_it_is_bound_to(museum: tuple[Live, str, Doors]) -> None:
    """Root, decoded names, the form by query or Accept, end and signature; what is malformed is not asked at all."""
    live, root, doors = museum
    path = f"/ipfs/{root}/b%20c"
    given = live.get(f"{path}?exp=99&sig=good")
    assert (given.status_code, given.headers["referrer-policy"]) == (200, "no-referrer")
    assert doors.asked[-1] == (root, (b"b c",), "", 99, "good")
    assert live.get(f"{path}?exp=99&sig=good", Accept="application/vnd.ipld.raw").status_code == 404
    assert [form for _, _, form, _, _ in doors.asked[-2:]] == ["", "raw"]
    assert live.get(f"{path}?format=car&exp=99&sig=good").status_code == 404
    assert live.get(f"/ipfs/{root}/?exp=99&sig=good").status_code == 404
    count = len(doors.asked)
    for query in (
        "exp=&sig=good",
        "exp=099&sig=good",
        "exp=-1&sig=good",
        "exp=99&sig=",
        "sig=good",
        f"exp={'9' * 14}&sig=x",
    ):
        assert live.get(f"{path}?{query}").status_code == 404
    assert len(doors.asked) == count
    assert live.get(f"{path}?exp=99&sig=good&exp=1&sig=bad").status_code == 200  # of a repeated key the first counts


def test_public_content_is_as_it_was_with_a_token(museum: tuple[Live, str, Doors]) -> None:
    """Who has a token reads what is public by the same answer as anybody."""
    live, _, _ = museum
    cid = str(live.content.add_file(b"anybody's").cid)
    with_token = live.get(f"/ipfs/{cid}", Authorization="Bearer fst_museum")
    assert "immutable" in with_token.headers["cache-control"]
    assert "vary" not in with_token.headers or "Authorization" not in with_token.headers["vary"]


def test_another_service_is_told_the_query_without_the_signature() -> None:
    """All that it may go by is there; what opens the door here is not."""
    signature = "A" * 50
    assert without_signature(f"?token=t&exp=9&sig={signature}&a=b") == "?token=t&exp=9&sig=***&a=b"
    assert without_signature("?sig=own&x=1") == "?sig=own&x=1"


def test_no_log_has_what_opens_doors() -> None:
    """Signatures, ends and tokens are masked in a target wherever they stand in it."""
    target = "/ipfs/CID/a?format=car&exp=1790003600&sig=AAAAAAOqL-5F&x=fst_0123456789abcdef_secret"
    assert masked(target) == "/ipfs/CID/a?format=car&exp=***&sig=***&x=fst_***"
