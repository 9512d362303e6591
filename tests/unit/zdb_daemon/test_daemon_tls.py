"""TLS beside TCP: who is let in, what is served, and certificates that change while it serves."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from tests.unit.zdb_daemon.authority import Authority
from tests.unit.zdb_daemon.harness import DEADLINE_S, Client, Daemon, daemon, encode


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def _flags(certificate: Path, key: Path, *more: str) -> list[str]:
    return ["--tls-port", "0", "--tls-cert", str(certificate), "--tls-key", str(key), *more]


def _tls_port(running: Daemon) -> int:
    return int(running.port_file.read_text().split("\n")[-1])


def _connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    return context.wrap_socket(plain, server_hostname="localhost")


def _trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.path))


def _serial(port: int, context: ssl.SSLContext) -> object:
    with _connect(port, context) as link:
        certificate = link.getpeercert()
        assert certificate is not None
        return certificate["serialNumber"]


def _exactly(link: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = link.recv(min(count - len(data), 1 << 20))
        assert piece, "it closed"
        data += piece
    return bytes(data)


def test_values_of_all_sizes_over_tls(tmp_path: Path, authority: Authority) -> None:
    """Pipelines and values up to 8 MiB pass in both directions; plain TCP serves the same data beside it."""
    with daemon(tmp_path, *_flags(*authority.issue("one"))) as running:
        with _connect(_tls_port(running), _trusting(authority)) as link:
            for size in (0, 1, 16_384, 100_000, 8 << 20):
                value = os.urandom(size)
                key = f"k{size}"
                link.sendall(encode("SET", key, value) + encode("GET", key))
                head = b"$%d\r\n%b\r\n$%d\r\n" % (len(key), key.encode(), size)
                assert _exactly(link, len(head)) == head
                assert _exactly(link, size + 2) == value + b"\r\n"
                assert running.client().call("LENGTH", key) == size
            link.sendall(encode("PING") * 5000)
            assert _exactly(link, 7 * 5000) == b"+PONG\r\n" * 5000
        assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="no redis-cli")
def test_redis_cli_speaks_tls(tmp_path: Path, authority: Authority) -> None:
    """`redis-cli --tls` works with the certificate of our authority, and is refused without it."""
    with daemon(tmp_path, *_flags(*authority.issue("one"))) as running:
        words = ["redis-cli", "-h", "localhost", "-p", str(_tls_port(running)), "--tls"]
        found = subprocess.run([*words, "--cacert", str(authority.path), "PING"], check=True, capture_output=True)
        assert found.stdout == b"PONG\n"
        refused = subprocess.run([*words, "PING"], check=False, capture_output=True)
        assert b"certificate verify failed" in refused.stderr


def test_clients_without_a_certificate_are_refused(tmp_path: Path, authority: Authority) -> None:
    """With --tls-ca only who shows a certificate of that authority gets an answer."""
    flags = _flags(*authority.issue("one"), "--tls-ca", str(authority.path), "--tls-only")
    with daemon(tmp_path, *flags) as running:
        port = _tls_port(running)
        (tmp_path / "other").mkdir()
        stranger = Authority(tmp_path / "other", "stranger")
        for given, right in ((None, False), (stranger.issue("bad"), False), (authority.issue("good"), True)):
            context = _trusting(authority)
            if given is not None:
                context.load_cert_chain(*map(str, given))
            try:
                with _connect(port, context) as link:
                    link.sendall(encode("PING"))
                    answer = link.recv(100)
            except (ssl.SSLError, ConnectionError):
                answer = b""
            assert (answer == b"+PONG\r\n") is right
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as plain:
            plain.sendall(encode("PING"))
            assert b"PONG" not in plain.recv(100)
        assert running.stop() == 0


def test_a_new_certificate_is_shown_after_sighup(tmp_path: Path, authority: Authority) -> None:
    """SIGHUP shows the new certificate to who comes then; connections stay; files that do not serve change nothing."""
    certificate, key = authority.issue("one")
    with daemon(tmp_path / "z", *_flags(certificate, key)) as running:
        port, context = _tls_port(running), _trusting(authority)
        before = _serial(port, context)
        with _connect(port, context) as link:
            shutil.copy(authority.issue("two")[0], certificate)
            _reload(running, "tls.not-renewed")
            assert _serial(port, context) == before
            shutil.copy(tmp_path / "two.key", key)
            _reload(running, "tls.renewed")
            assert _serial(port, context) != before
            link.sendall(encode("PING"))
            assert link.recv(100) == b"+PONG\r\n"
        assert running.stop() == 0


def _reload(running: Daemon, event: str) -> None:
    seen = running.log.read_text().count("daemon.reloaded")
    running.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + DEADLINE_S
    while running.log.read_text().count("daemon.reloaded") == seen:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert event in running.log.read_text()


def test_files_that_do_not_serve_stop_the_start(tmp_path: Path, authority: Authority) -> None:
    """A missing file, another's key, a locked key and an empty file are named; nothing waits for a passphrase."""
    certificate, key = authority.issue("one")
    other = authority.issue("two")[1]
    locked = authority.issue("three", passphrase=b"secret")
    (tmp_path / "empty").write_bytes(b"")
    for pair, text in (
        ((certificate, tmp_path / "none"), "none"),
        ((certificate, other), "KEY_VALUES_MISMATCH"),
        (locked, "passphrase"),
        ((tmp_path / "empty", key), "empty"),
    ):
        with pytest.raises(RuntimeError, match=text):
            Daemon(tmp_path / "z", *_flags(*pair))


def test_who_never_finishes_the_handshake_holds_up_nobody(tmp_path: Path, authority: Authority) -> None:
    """Half a handshake, and plain words on the TLS port, leave others served and a stop clean."""
    with daemon(tmp_path, *_flags(*authority.issue("one"))) as running:
        port = _tls_port(running)
        with socket.create_connection(("127.0.0.1", port)) as half, socket.create_connection(("127.0.0.1", port)) as no:
            half.sendall(b"\x16\x03\x01")
            no.sendall(b"*1\r\n$4\r\nPING\r\n" * 10)
            with _connect(port, _trusting(authority)) as link:
                link.sendall(encode("PING"))
                assert link.recv(100) == b"+PONG\r\n"
            assert Client(running.address).call("PING") == b"PONG"
            assert running.stop() == 0
        assert "Traceback" not in running.log.read_text()
