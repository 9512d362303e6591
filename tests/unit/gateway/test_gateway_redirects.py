"""The `_redirects` file of a website: its grammar, and what becomes of a path that leads nowhere."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from fungistor.errors import InvalidError
from fungistor.testing.memory_content import MemoryContent, Symlink, Tree
from gateway import redirects_file
from gateway.headers import IMMUTABLE
from tests.unit.gateway.naming import Named, serving_names

SEED = 20_261_121

RULES = """\
# a comment
/one            /one.html
/two /two.html  302\r
/see /two.html 303
/temp /two.html 307
/moved /two.html 308
  /index  /index.html 200

/posts/:year/:month/:title /articles/:year-:month/:title/:title
/splat/* /elsewhere/:splat
/gone/* /410.html 410
/law/* /451.html 451
/missing/* /404.html 404
/q/:code /file?a=1&b=2&code=:code#part
/away/* https://example.net:8443/x/:splat?s=1 302
/loop/* /nothing/at/all 200
/page-is-folder /dir 404
/app/* /index.html 200
"""

PAGES: dict[str, bytes | Tree] = {
    "index.html": b"<h1>index</h1>",
    "one.html": b"one",
    "two.html": b"two",
    "404.html": b"my 404",
    "410.html": b"my 410",
    "451.html": b"my 451",
    "dir": {"a": b"1"},
}


@pytest.fixture(scope="module")
def named() -> Iterator[Named]:
    content = MemoryContent()
    tree: dict[str, bytes | Symlink | Tree] = {
        **PAGES,
        "_redirects": RULES.encode(),
        "ą": {"_redirects": b"/a /b\n/* /c 302", "here": b"here"},
    }
    with serving_names(content, content.add_tree(tree).cid) as served:
        yield served


@pytest.mark.parametrize(
    ("target", "status", "location"),
    [
        ("/one", 301, "/one.html"),
        ("/two", 302, "/two.html"),
        ("/see", 303, "/two.html"),
        ("/temp", 307, "/two.html"),
        ("/moved/", 308, "/two.html"),
        ("/posts/2022/01/hello%20world", 301, "/articles/2022-01/hello%20world/hello%20world"),
        ("/splat/a/b%0D%0AX:%20y", 301, "/elsewhere/a/b%0D%0AX:%20y"),
        ("/q/7", 301, "/file?a=1&b=2&code=7#part"),
        ("/q/7?b=9&c=3", 301, "/file?a=1&code=7&b=9&c=3#part"),
        ("/away/p/q?z=1", 302, "https://example.net:8443/x/p/q?s=1&z=1"),
    ],
)
def test_redirects(named: Named, target: str, status: int, location: str) -> None:
    """A rule's status and target, with placeholders, splats and the user's query, which outweighs the rule's."""
    for host in (named.subdomain, "site.example.org", "site-example-org.ipns.example.com"):
        answer = named.live.get(target, Host=host)
        assert (answer.status_code, answer.headers["location"]) == (status, location)
    assert "immutable" not in answer.headers["cache-control"]


@pytest.mark.parametrize(("target", "status", "body"), [
    ("/missing/x", 404, "my 404"), ("/gone/x", 410, "my 410"), ("/law/x/y", 451, "my 451"),
    ("/index", 200, "<h1>index</h1>"), ("/app/any/route", 200, "<h1>index</h1>"),
])  # fmt: skip
def test_pages_in_place_of_others(named: Named, target: str, status: int, body: str) -> None:
    """A page takes the place of a path that is not there, under the rule's status, its own tag and type."""
    answer = named.live.get(target, Host=named.subdomain)
    assert (answer.status_code, answer.text, answer.headers["cache-control"]) == (status, body, IMMUTABLE)
    assert answer.headers["content-type"].startswith("text/html")
    by_name = named.live.get(target, Host="site.example.org")
    assert (by_name.status_code, by_name.headers["etag"]) == (status, answer.headers["etag"])
    assert "immutable" not in by_name.headers["cache-control"]
    assert "date" in by_name.headers
    for host in (named.subdomain, "site-example-org.ipns.example.com", "site.example.org"):
        again = named.live.get(target, Host=host, If_None_Match=answer.headers["etag"])
        assert (again.status_code, again.content) == (304, b"")
        assert named.live.get(target, Host=host, If_None_Match='"other"').text == body
    head = named.live.request("HEAD", target, Host=named.subdomain)
    assert (head.status_code, head.content) == (status, b"")


def test_lines_of_other_systems() -> None:
    """A file whose lines all end in CR LF, as editors elsewhere write them, says the same."""
    content = MemoryContent()
    tree: Tree = {**PAGES, "_redirects": RULES.replace("\r", "").replace("\n", "\r\n").encode()}
    with serving_names(content, content.add_tree(tree).cid) as named:
        for target, status, place in (("/one", 301, "/one.html"), ("/two", 302, "/two.html")):
            answer = named.live.get(target, Host=named.subdomain)
            assert (answer.status_code, answer.headers["location"]) == (status, place)
        assert named.live.get("/missing/x", Host=named.subdomain).status_code == 404


def test_what_is_there_needs_no_rules(named: Named) -> None:
    """A path that leads somewhere is never redirected, and the top of a site is where its name leads."""
    assert named.live.get("/one.html", Host=named.subdomain).text == "one"
    assert named.live.get("/here", Host="below.example.org").text == "here"
    assert named.live.get("/a", Host="below.example.org").headers["location"] == "/b"
    assert named.live.get("/any", Host="below.example.org").headers["location"] == "/c"


def test_without_isolation_there_are_no_rules(named: Named) -> None:
    """On a path gateway one site's rules would rule over others; other formats are answered as they are."""
    assert named.live.get(f"/ipfs/{named.root}/one").status_code == 404
    assert named.live.get("/ipns/site.example.org/one").status_code == 404
    assert named.live.get("/one?format=raw", Host=named.subdomain).status_code == 404


def test_rules_that_lead_nowhere(named: Named) -> None:
    """A rewrite to a path that is not there is 404; an error page that is no file is the publisher's fault."""
    assert named.live.get("/loop/x", Host=named.subdomain).status_code == 404
    assert named.live.get("/page-is-folder", Host=named.subdomain).status_code == 500
    assert named.live.get("/no/such/rule", Host=named.subdomain).status_code == 404


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (b"/a /b 301!", "forced"),
        (b"/a /b 305", "status"),
        (b"/a", "FROM TO"),
        (b"/a /b 301 x", "FROM TO"),
        (b"a /b", "slash"),
        (b"/a b", "neither a path nor a URL"),
        (b"/a ftp://x/y", "neither a path nor a URL"),
        (b"/a https://x/y 200", "path of this site"),
        (b"/:x/:x /b", "twice"),
        (b"/a*b /c", "asterisk"),
        (b"/a/*/b /c", "asterisk"),
        (b"/a?x=1 /b", "path alone"),
        (b"\xff\xfe /b", "UTF-8"),
        (b"#" + b"x" * 70_000, "redirects file size cannot exceed"),
        ({"x": b"1"}, "directory"),
    ],
)
def test_files_that_are_no_good(rules: bytes | dict[str, bytes], says: str) -> None:
    """A file with a mistake is 500 and says which, but harms no path that is there."""
    content = MemoryContent()
    root = content.add_tree({"found.html": b"my found", "_redirects": rules}).cid
    with serving_names(content, root) as named:
        answer = named.live.get("/not-found", Host=named.subdomain)
        assert answer.status_code == 500
        assert "could not parse _redirects:" in answer.text
        assert says in answer.text
        assert named.live.get("/found.html", Host=named.subdomain).text == "my found"


def test_the_size_has_a_bound_and_no_less() -> None:
    """64 KiB are read."""
    rules = b"/a /b\n" + b"#" * (64 * 1024 - 6)
    content = MemoryContent()
    with serving_names(content, content.add_tree({"_redirects": rules}).cid) as named:
        assert named.live.get("/a", Host=named.subdomain).headers["location"] == "/b"


def test_no_rule_leaves_the_grammar() -> None:
    """Whatever text is read, rules come of it or InvalidError, and no target holds a byte that ends a header."""
    rng = random.Random(SEED)
    parts = (
        "/",
        ":a",
        "*",
        " ",
        "\n",
        "/x",
        "200",
        "301",
        "#",
        "?",
        "%0d",
        "\r",
        "ü",
        "https://h",
        "//evil",
        "\t",
        ":splat",
    )
    for _ in range(3000):
        text = "".join(rng.choice(parts) for _ in range(rng.randrange(1, 14)))
        try:
            rules = redirects_file.parse(text)
        except InvalidError:
            continue
        outcome = redirects_file.evaluate(rules, [b"x", b"\r\n", b"\xff"][: rng.randrange(4)])
        if outcome is not None:
            location = outcome.location("")
            assert location.isascii()
            assert location.isprintable()
            assert not location.startswith("//")
