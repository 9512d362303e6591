"""Our own connections to members by TLS: the certificate is checked before a password leaves, values pass whole."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fungistor.ids import MemberId, MemberNumber
from fungistor.pool.members import MemberSpec
from fungistor.pool.stock import Stock
from fungistor.zdb.client import Client, Login, MemberError, Tls
from tests.unit.zdb_daemon.authority import Authority
from tests.unit.zdb_daemon.harness import DEADLINE_S, daemon


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def port(tmp_path: Path, authority: Authority) -> Iterator[int]:
    """A daemon that serves TLS as localhost and 127.0.0.1."""
    certificate, key = authority.issue("member", "localhost", "127.0.0.1")
    flags = ["--tls-port", "0", "--tls-cert", str(certificate), "--tls-key", str(key), "--admin", "pw"]
    with daemon(tmp_path / "z", *flags) as running:
        yield int(running.port_file.read_text().split("\n")[-1])
        assert running.stop() == 0


def test_values_pass_whole(port: int, authority: Authority) -> None:
    """Values of all sizes go and come back, by name and by address, on one connection each."""
    for host in ("localhost", "127.0.0.1"):
        with Client(f"{host}:{port}", Login(admin_password="pw", tls=Tls(str(authority.path)))) as client:
            for size in (0, 1, 5000, 300_000, 8 << 20):
                value = os.urandom(size)
                assert client.call("SET", f"{host}{size}", value, timeout_s=DEADLINE_S) == f"{host}{size}".encode()
                assert client.call("GET", f"{host}{size}", timeout_s=DEADLINE_S) == value
            assert len(client.run_id) == 40


def test_a_wrong_certificate_is_not_believed(tmp_path: Path, port: int, authority: Authority) -> None:
    """An authority that we do not know, the system's alone, and another host's name end before anything is said."""
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger")
    for tls in (Tls(str(stranger.path)), Tls()):
        with pytest.raises(MemberError, match="not believed"), Client(f"localhost:{port}", Login(tls=tls)) as client:
            client.call("PING")
    certificate, key = authority.issue("elsewhere", "elsewhere.example")
    flags = ["--tls-port", "0", "--tls-cert", str(certificate), "--tls-key", str(key), "--tls-only"]
    login = Login(tls=Tls(str(authority.path)))
    with (
        daemon(tmp_path / "elsewhere", *flags) as running,
        Client(running.address, login) as client,
        pytest.raises(MemberError, match="mismatch"),
    ):
        client.call("PING")
    with pytest.raises(MemberError, match="TLS files do not serve"):
        Client(f"localhost:{port}", Login(tls=Tls(str(tmp_path / "none"))))


def _until_reset(work: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        work()


def test_no_password_goes_to_who_speaks_no_tls(authority: Authority) -> None:
    """Something else that listens there hears a handshake and no word of the greeting."""
    heard = bytearray()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def answer() -> None:
            with listening.accept()[0] as link:
                heard.extend(link.recv(65536))
                link.sendall(b"+OK\r\n" * 10)
                while data := link.recv(65536):
                    heard.extend(data)

        thread = threading.Thread(target=_until_reset, args=(answer,))
        thread.start()
        login = Login(password="top-secret", namespace="n", tls=Tls(str(authority.path)))
        with pytest.raises(MemberError, match="no TLS with it"):
            Client(f"127.0.0.1:{listening.getsockname()[1]}", login).call("PING")
        thread.join(DEADLINE_S)
    assert heard[:1] == b"\x16"
    assert b"top-secret" not in heard and b"SELECT" not in heard


def test_a_member_that_asks_is_shown_a_certificate(tmp_path: Path, authority: Authority) -> None:
    """With --tls-ca on the member's side a client gets in by its own certificate, and not without."""
    certificate, key = authority.issue("member")
    flags = ["--tls-port", "0", "--tls-cert", str(certificate), "--tls-key", str(key), "--tls-ca", str(authority.path)]
    ours = [str(path) for path in authority.issue("client")]
    with daemon(tmp_path / "z", *flags) as running:
        address = f"localhost:{running.port_file.read_text().split()[-1]}"
        with Client(address, Login(tls=Tls(str(authority.path), *ours))) as client:
            assert client.call("SET", "k", "v") == b"k"
        with pytest.raises(MemberError), Client(address, Login(tls=Tls(str(authority.path)))) as client:
            client.call("PING")


def test_the_pool_takes_members_by_tls(port: int, authority: Authority) -> None:
    """A member whose place in the pool says TLS is reached by it."""
    spec = MemberSpec(MemberNumber(1), MemberId("m01"), f"localhost:{port}", tls=Tls(str(authority.path)))
    stock = Stock([spec])
    connection = stock.open(MemberNumber(1))
    try:
        assert type(connection).__name__ == "TlsConnection"
    finally:
        connection.close()
        stock.close()
