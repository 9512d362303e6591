"""Addresses of members."""

from __future__ import annotations

import socket

import pytest

from fungistor.errors import InvalidError, UnavailableError
from fungistor.zdb.address import Endpoint, Resolver, parse_address


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:9900", Endpoint(socket.AF_INET, ("127.0.0.1", 9900))),
        ("[::1]:9900", Endpoint(socket.AF_INET6, ("::1", 9900))),
        ("/run/zdb.sock", Endpoint(socket.AF_UNIX, "/run/zdb.sock")),
        ("zdb.example:9900", ("zdb.example", 9900)),
    ],
)
def test_the_forms_of_an_address(text: str, parsed: object) -> None:
    """Numeric addresses and sockets need no resolver, names are left for it."""
    assert parse_address(text) == parsed


@pytest.mark.parametrize("text", ["", "host", ":9900", "host:", "host:0", "host:65536", "host:-1", "host:99x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """A bad address is refused input, not a member that is down."""
    with pytest.raises(InvalidError, match="member address"):
        parse_address(text)


def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    """The failure is told, and remembered."""
    resolver = Resolver()
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"nowhere\.invalid"):
            resolver.resolve("nowhere.invalid:9900")


def test_localhost_resolves() -> None:
    """A name in the hosts file is an endpoint with that port."""
    assert Resolver().resolve("localhost:9900").address[1] == 9900
