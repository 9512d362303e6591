from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.errors import FailedError, FungiStorError, InvalidError
from fungistor.ids import MemberId
from fungistor.node.pool_file import (
    POOL_FILE_BYTES_MAX,
    POOL_MEMBERS_MAX,
    PoolMember,
    load_pool,
    parse_pool,
    save_pool,
)

ONE = '[[member]]\nid = "m01"\naddress = "127.0.0.1:9900"\nnamespace = "ns"\n'


def test_a_pool_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """What is saved is loaded, in its order, and nobody but its owner may read it."""
    members = (
        PoolMember(MemberId("m02"), "[::1]:9901", "ns", "geheim", ("de", "fra", "h1", "d1"), 10**12, 7, 50.1, 8.7),
        PoolMember(MemberId("m01"), "h:1", "ns", tls=True, tls_ca="/etc/ca.pem", durable=True),
    )
    path = str(tmp_path / "pool.toml")
    save_pool(path, members)
    assert load_pool(path) == members
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_table_by_name_has_that_id() -> None:
    """`[m01]` is a member m01, as `[[member]]` with an id is."""
    text = '[m01]\naddress = "h:1"\nnamespace = "n"\n[m02]\naddress = "h:2"\nnamespace = "n"\nid = "other"\n'
    assert [member.id for member in parse_pool(text.encode(), "p")] == ["m01", "other"]


def test_a_password_never_shows() -> None:
    """A member printed in a log or a traceback does not carry its password."""
    (member,) = parse_pool((ONE + 'password = "geheim"').encode(), "p")
    assert member.password == "geheim"
    assert "geheim" not in repr(member)


def test_a_password_file_is_relative_to_the_pool_file(tmp_path: Path) -> None:
    """password_file lies beside the pool file, and its last line end is not part of the password."""
    (tmp_path / "secret").write_text("geheim\n")
    (tmp_path / "pool.toml").write_text(ONE + 'password_file = "secret"')
    assert load_pool(str(tmp_path / "pool.toml"))[0].password == "geheim"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id = 1\nid = ?\n", "line 2"),
        ("", "no member"),
        ("x = 1", "'x'"),
        ("member = [1]", "number 1"),
        (ONE.replace("m01", "../m01"), "id"),
        (ONE.replace("127.0.0.1:9900", "127.0.0.1"), "address"),
        (ONE.replace("9900", "0"), "address"),
        (ONE.replace("9900", "65536"), "address"),
        (ONE.replace('"ns"', '"a/b"'), "namespace"),
        (ONE.replace('namespace = "ns"', ""), "namespace is missing"),
        (ONE + 'zone = "a//b"', "zone"),
        (ONE + 'zone = "' + "/".join("abcdefghi") + '"', "zone"),
        (ONE + "weight = -1", "weight"),
        (ONE + "weight = true", "weight"),
        (ONE + "weight = 1.5", "weight"),
        (ONE + "lat = 1", "lon is missing"),
        (ONE + "lat = nan\nlon = 1", "lat"),
        (ONE + "lat = 91\nlon = 1", "lat"),
        (ONE + 'tls = "yes"', "tls"),
        (ONE + 'capacity = "-1"', "capacity"),
        (ONE + "capacity = 0", "capacity"),
        (ONE + "capacity = true", "capacity"),
        (ONE + 'password = "x"\npassword_file = "y"', "both"),
        (ONE + 'password_file = "no-such-file"', "password_file"),
        (ONE + f'password = "{"x" * 64}"', "63"),
        (ONE + "wheight = 1", "wheight"),
        (ONE + ONE, "two members"),
        (ONE + ONE.replace("m01", "m02"), "namespace ns at"),
        ("x = " + "1" * 5000, "TOML"),
        ("x = " + "[" * 5000, "TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, says: str) -> None:
    """Each mistake in a pool file is refused with the line, or the member and the key."""
    with pytest.raises(InvalidError, match=r"^pool\.toml") as refused:
        parse_pool(text.encode(), "pool.toml")
    assert says in refused.value.message


def test_sizes_are_bounded(tmp_path: Path) -> None:
    """A file or a list longer than any pool is refused before it is taken apart."""
    path = tmp_path / "pool.toml"
    path.write_bytes(b"#" * (POOL_FILE_BYTES_MAX + 1))
    with pytest.raises(InvalidError, match="longer"):
        load_pool(str(path))
    many = "".join(f'[m{n}]\naddress="h:{n % 65535 + 1}"\nnamespace="n"\n' for n in range(POOL_MEMBERS_MAX + 1))
    with pytest.raises(InvalidError, match=str(POOL_MEMBERS_MAX)):
        parse_pool(many.encode(), "p")
    with pytest.raises(FailedError):
        load_pool(str(tmp_path / "absent"))


@pytest.mark.parametrize(("text", "size"), [("500 GB", 500 * 10**9), ("1TiB", 2**40), ("12", 12), ("3 KiB", 3072)])
def test_capacity_is_bytes_or_words(text: str, size: int) -> None:
    """A capacity may be written as people write it."""
    assert parse_pool((ONE + f'capacity = "{text}"').encode(), "p")[0].capacity == size


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: (ONE + text).encode("utf-8", "replace")))
def test_no_bytes_crash_the_reader(content: bytes) -> None:
    """Any bytes give members or one of our own errors."""
    with contextlib.suppress(FungiStorError):
        parse_pool(content, "/nowhere/pool.toml")
