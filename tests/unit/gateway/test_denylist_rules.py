"""Rules of the compact denylist format, with the specification's own examples."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fungistor.dag.cid import CID
from fungistor.dag.multibase import encode_base58
from fungistor.errors import InvalidError
from gateway.denylist.files import Denylists
from gateway.denylist.parsing import BadLine, Rule, parse
from gateway.denylist.rules import Rules
from gateway.paths import parse as parse_path

V0 = "QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK"
OTHER = "bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq"


def _rules(text: str) -> Rules:
    found = list(parse(text.encode().splitlines(keepends=True)))
    assert all(isinstance(rule, Rule) for rule in found), found
    return Rules(rule for rule in found if isinstance(rule, Rule))


def _status(rules: Rules, path: str) -> int:
    """The status that a path gets: 0 where it may be served."""
    parsed = parse_path(path.encode())
    rule = rules.of_path(parsed.namespace, parsed.root, parsed.segments)
    return rule.status if rule is not None and not rule.allows else 0


@pytest.mark.parametrize(
    ("rule", "path", "status"),
    [
        (f"/ipfs/{V0}", f"/ipfs/{V0}", 410),
        (f"/ipfs/{V0}", f"/ipfs/{CID.parse(V0).to_v1()}", 410),
        (f"/ipfs/{V0}", f"/ipfs/{V0}/below", 0),
        (f"/ipfs/{V0}", f"/ipfs/{OTHER}", 0),
        (f"/ipfs/{V0}/a/b", f"/ipfs/{V0}/a/b/", 410),
        (f"/ipfs/{V0}/a/b/", f"/ipfs/{V0}/a/b", 410),
        (f"/ipfs/{V0}/a/b", f"/ipfs/{V0}/a", 0),
        (f"/ipfs/{V0}/a/b", f"/ipfs/{V0}/a/bc", 0),
        (f"/ipfs/{V0}/*", f"/ipfs/{V0}", 410),
        (f"/ipfs/{V0}/*", f"/ipfs/{V0}/any/path", 410),
        (f"/ipfs/{V0}/ab*", f"/ipfs/{V0}/abc/d", 410),
        (f"/ipfs/{V0}/ab*", f"/ipfs/{V0}/ab", 410),
        (f"/ipfs/{V0}/ab/*", f"/ipfs/{V0}/ab", 410),
        (f"/ipfs/{V0}/ab*", f"/ipfs/{V0}/a", 0),
        (f"/ipfs/{V0}/%C4%85%20x", f"/ipfs/{V0}/%C4%85%20x", 410),
        (f"/ipfs/{V0} gateway_status:451", f"/ipfs/{V0}", 451),
        (f"/ipfs/{V0} gateway_status=451 other:x", f"/ipfs/{V0}", 451),
        (f"/ipfs/{V0} gateway_status:200", f"/ipfs/{V0}", 410),
        ("/ipns/domain.example", "/ipns/domain.example", 410),
        ("/ipns/domain.example", "/ipns/Domain.Example", 410),
        ("/ipns/domain.example", "/ipns/domain.example/x", 0),
        ("/ipns/domain.example/*", "/ipns/domain.example/x", 410),
        (f"/ipns/{V0}", f"/ipns/{CID.parse(V0).to_v1()}", 410),
        # Double hashes out of the specification.
        ("//QmX9dhRcQcKUw3Ws8485T5a9dtjrSCQaUAHnG4iK9i4ceM", "/ipfs/QmVTF1yEejXd9iMgoRTFDxBv7HAz9kuZcQNBzHrceuK9HR",
         410),
        (
            "//QmX9dhRcQcKUw3Ws8485T5a9dtjrSCQaUAHnG4iK9i4ceM",
            "/ipfs/bafybeidjwik6im54nrpfg7osdvmx7zojl5oaxqel5cmsz46iuelwf5acja",
            410,
        ),
        (
            "//gW813G35CnLsy7gRYYHuf63hrz71U1xoLFDVeV7actx6oX",
            "/ipfs/bafyb4ieqht3b2rssdmc7sjv2cy2gfdilxkfh7623nvndziyqnawkmo266a/path",
            410,
        ),
        (
            "//gW813G35CnLsy7gRYYHuf63hrz71U1xoLFDVeV7actx6oX",
            "/ipfs/bafyb4ieqht3b2rssdmc7sjv2cy2gfdilxkfh7623nvndziyqnawkmo266a/path2",
            0,
        ),
        (
            "//d9d295bde21f422d471a90f2a37ec53049fdf3e5fa3ee2e8f20e10003da429e7",
            "/ipfs/bafybeiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e",
            410,
        ),
        (
            "//3f8b9febd851873b3774b937cce126910699ceac56e72e64b866f8e258d09572",
            "/ipfs/bafybeiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e/path",
            410,
        ),
        ("//c555c4de78827ba42527dd3dc5398db38d6c0a8c345a88e0158b2d100f317e50", "/ipns/bad-domain-name.tld", 410),
        ("//QmSju6XPmYLG611rmK7rEeCMFVuL6EHpqyvmEU6oGx3GR8",
         "/ipfs/bafybeihrw75yfhdx5qsqgesdnxejtjybscwuclpusvxkuttep6h7pkgmze/my/path", 410),
    ],
)  # fmt: skip
def test_single_rules(rule: str, path: str, status: int) -> None:
    """Each kind of rule blocks what the specification says it blocks, in every form of the CID, nothing else."""
    assert _status(_rules(rule), path) == status


def test_the_last_matching_rule_decides() -> None:
    """Exceptions after a rule hold, and a rule after them holds again."""
    rules = _rules(
        f"/ipfs/{V0}/blocked*\n!/ipfs/{V0}/blockednot\n!/ipfs/{V0}/blocked/exceptions*\n"
        f"!/ipns/my.domain\n/ipns/my.domain\n"
    )
    assert _status(rules, f"/ipfs/{V0}/blocked") == 410
    assert _status(rules, f"/ipfs/{V0}/blockednot") == 0
    assert _status(rules, f"/ipfs/{V0}/blockednott") == 410
    assert _status(rules, f"/ipfs/{V0}/blocked/exceptions/x") == 0
    assert _status(rules, "/ipns/my.domain") == 410


def test_a_name_is_found_by_its_double_hash() -> None:
    """A name's double hash is over ``/ipns/NAME``, as the modern form wants it."""
    digest = hashlib.sha256(b"/ipns/some.domain").digest()
    assert _status(_rules("//" + encode_base58(b"\x12\x20" + digest)), "/ipns/some.domain") == 410


def test_the_header_gives_hints_to_every_rule() -> None:
    """Hints of the header hold where a line has none of its own."""
    rules = _rules(
        f"version: 1\nname: a list\nhints:\n  gateway_status: 451\n---\n# words\n\n/ipfs/{V0}\n/ipfs/{OTHER} "
        "gateway_status:410\n"
    )
    assert (_status(rules, f"/ipfs/{V0}"), _status(rules, f"/ipfs/{OTHER}")) == (451, 410)


def test_another_version_is_refused_whole() -> None:
    """A list of a version that nobody here knows is not half understood."""
    with pytest.raises(InvalidError, match="version"):
        list(parse([b"version: 2\n", b"---\n", b"/ipfs/x\n"]))


def test_bad_lines_are_told_and_passed_over() -> None:
    """A line that is no rule is named with its number; the others hold, one of 3 MiB included."""
    long = b"/ipfs/" + b"x" * (3 << 20) + b"\n"
    lines = [b"nonsense\n", b"/ipfs/notacid\n", b"//zz\n", b"\xff\n", long[: (2 << 20) + 1], long[(2 << 20) + 1 :],
             f"/ipfs/{V0}\n".encode()]  # fmt: skip
    found = list(parse(lines))
    assert [item.line for item in found] == [1, 2, 3, 4, 5, 6]
    assert [type(item) for item in found] == [BadLine] * 5 + [Rule]


@given(st.lists(st.binary(max_size=80)))
def test_no_bytes_crash_it(lines: list[bytes]) -> None:
    """Whatever a file holds, it is rules, bad lines, or a refusal."""
    try:
        for _ in parse(line.replace(b"\n", b"") + b"\n" for line in lines):
            pass
    except InvalidError:
        return


def test_files_are_followed(tmp_path: Path) -> None:
    """Files count in the order of their names; an appended line holds at once; a broken file keeps its rules."""
    first, second = tmp_path / "a.deny", tmp_path / "b.deny"
    lists = Denylists([str(tmp_path), "/nonexistent"])
    assert not lists.rules
    first.write_text(f"/ipfs/{V0}\n")
    second.write_text(f"!/ipfs/{V0}\n")
    (tmp_path / "c.txt").write_text(f"/ipfs/{OTHER}\n")
    assert lists.refresh()
    assert _status(lists.rules, f"/ipfs/{V0}") == _status(lists.rules, f"/ipfs/{OTHER}") == 0
    with second.open("a") as file:
        file.write(f"/ipfs/{V0}\n")
    assert lists.refresh()
    assert _status(lists.rules, f"/ipfs/{V0}") == 410
    assert not lists.refresh()
    second.write_text("version: 9\n---\n")
    assert lists.refresh()
    assert _status(lists.rules, f"/ipfs/{V0}") == 410
    second.unlink()
    first.unlink()
    assert lists.refresh()
    assert not lists.rules
