from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fungistor.errors import ConflictError, FailedError, InvalidError, UnavailableError
from fungistor.node.control import SOCKET_NAME, ControlServer, Message, ask
from fungistor.node.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A locked home whose path is longer than a socket's may be."""
    home = Home(str(tmp_path / ("long" * 40) / "home"))
    home.prepare()
    lock = home.lock()
    yield home
    os.close(lock)


def answer(request: Message) -> Message:
    match request.get("op"):
        case "echo":
            return {"said": request["what"]}
        case "refuse":
            raise ConflictError("m03 was wiped", hint="reset it")
    raise RuntimeError("a bug")


@pytest.fixture
def server(home: Home) -> Iterator[ControlServer]:
    """A server on that home."""
    server = ControlServer(home, answer)
    yield server
    server.close()


def test_a_request_is_answered_over_any_length_of_path(home: Home, server: ControlServer) -> None:
    """A home's path may be longer than the 107 bytes of a socket's, and long answers come whole."""
    what = "x" * 300_000
    assert len(home.path("run", SOCKET_NAME)) > 108
    assert ask(home, {"op": "echo", "what": what}) == {"said": what}


def test_an_error_over_there_is_the_same_error_here(home: Home, server: ControlServer) -> None:
    """Family, message and hint cross the socket, so that the exit code is right."""
    with pytest.raises(ConflictError, match="m03 was wiped") as refused:
        ask(home, {"op": "refuse"})
    assert refused.value.hint == "reset it"


def test_a_bug_over_there_is_one_failed_request(home: Home, server: ControlServer) -> None:
    """What a request runs into ends that request and not the server."""
    with pytest.raises(FailedError, match="a bug"):
        ask(home, {"op": "?"})
    assert ask(home, {"op": "echo", "what": 1}) == {"said": 1}


@pytest.mark.parametrize("sent", [b"", b"\n", b"{\n", b"[]\n", b"\xff\n", b"1" * 5000 + b"\n"])
def test_garbage_is_refused(home: Home, server: ControlServer, sent: bytes) -> None:
    """Bytes that are no request get an error, and the next one is served."""
    folder = os.open(home.run, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert b"error" in connection.recv(65536)
    finally:
        os.close(folder)
    assert ask(home, {"op": "echo", "what": 1}) == {"said": 1}


def test_only_the_owner_may_connect(home: Home, server: ControlServer) -> None:
    """The socket is 0600, as the home around it is 0700."""
    assert stat.S_IMODE(os.stat(home.path("run", SOCKET_NAME)).st_mode) == 0o600


def test_without_a_server_it_is_unavailable(home: Home) -> None:
    """A network that is starting or stopping is exit 3, and a socket left by a killed `up` is replaced."""
    with pytest.raises(UnavailableError):
        ask(home, {"op": "echo", "what": 1})
    for _ in range(2):
        server = ControlServer(home, answer)
        assert ask(home, {"op": "echo", "what": 1}) == {"said": 1}
        os.link(home.path("run", SOCKET_NAME), home.path("run", "left"))
        server.close()
        os.rename(home.path("run", "left"), home.path("run", SOCKET_NAME))
    with pytest.raises(UnavailableError):
        ask(home, {"op": "echo", "what": 1})


def test_invalid_requests_keep_their_family() -> None:
    """Every family that crosses the socket has its own exit code."""
    assert InvalidError("x").exit_code == 2
