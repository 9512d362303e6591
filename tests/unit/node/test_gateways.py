from __future__ import annotations

import socket

import pytest

from fungistor.errors import FailedError, InvalidError
from fungistor.node.gateways import bind_gateway, gateway_url, parse_listen


@pytest.mark.parametrize(
    ("text", "taken_apart"),
    [
        ("127.0.0.1:8480", ("127.0.0.1", 8480)),
        ("[::1]:0", ("::1", 0)),
        (":80", ("0.0.0.0", 80)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_addresses_are_taken_apart(text: str, taken_apart: tuple[str, int]) -> None:
    """A gateway's address is a host and a port, in each of the usual forms."""
    assert parse_listen(text) == taken_apart


@pytest.mark.parametrize("text", ["", "8480", "host", "host:", "host:x", "host:65536", "host:-1", "::1:80", "h:1:2"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """Anything else is refused input, not a failure of the network."""
    with pytest.raises(InvalidError):
        parse_listen(text)


def test_a_taken_port_is_named() -> None:
    """The error says which address cannot be had, and what to do."""
    with bind_gateway("127.0.0.1:0") as first:
        port = first.getsockname()[1]
        with pytest.raises(FailedError, match=f"127.0.0.1:{port}") as refused:
            bind_gateway(f"127.0.0.1:{port}")
    assert "--gateway" in refused.value.hint


def test_an_unknown_host_is_an_error() -> None:
    """A name that is no machine's is told, not raised from the depths."""
    with pytest.raises(FailedError, match=r"no\.such\.host\.invalid"):
        bind_gateway("no.such.host.invalid:80")


def test_the_url_is_one_that_a_browser_can_open() -> None:
    """A gateway on all addresses is told by one that leads there."""
    with bind_gateway("0.0.0.0:0") as listener:
        assert gateway_url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    if socket.has_ipv6:
        try:
            listener = bind_gateway("[::1]:0")
        except FailedError:
            return  # no IPv6 on this machine
        with listener:
            assert gateway_url(listener).startswith("http://[::1]:")
