"""The nginx configuration of the documentation, run as it stands but for ports, names of files and the certificate."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fungistor.dag.cid import CID
from fungistor.testing.memory_content import MemoryContent
from gateway.hosts import parse_hosts
from tests.unit.gateway.live import serving, wait_until

CONFIG = Path(__file__).parents[3] / "docs" / "nginx-gateway.conf"
NAMES = ("gw.example.com", "*.ipfs.gw.example.com", "*.ipns.gw.example.com")
BIG = bytes(range(256)) * 12_000

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None or shutil.which("curl") is None, reason="needs nginx and curl on PATH"
)


@dataclass(frozen=True, slots=True)
class Front:
    """nginx before a gateway."""

    port: int
    plain_port: int
    certificate: Path
    root: CID

    def curl(self, host: str, target: str, *words: str, port: int | None = None) -> subprocess.CompletedProcess[bytes]:
        """Fetch over TLS, with the certificate checked."""
        at = port or self.port
        scheme = "https" if port is None else "http"
        command = ["curl", "-sS", "--http2", "--noproxy", "*", "--path-as-is", "--max-time", "20",
                   "--cacert", str(self.certificate), "--resolve", f"{host}:{at}:127.0.0.1", *words,
                   f"{scheme}://{host}:{at}{target}"]  # fmt: skip
        return subprocess.run(command, capture_output=True, check=False)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("nginx")
    content = MemoryContent()
    root = content.add_tree({"a%2Fb c.txt": b"odd", "big.bin": BIG}).cid
    hosts = parse_hosts('{"gw.example.com": {"UseSubdomains": true}}')
    with serving(content, hosts=hosts) as live, _nginx(folder, live.port) as (port, plain_port, certificate):
        yield Front(port, plain_port, certificate, root)


@contextmanager
def _nginx(folder: Path, gateway_port: int) -> Iterator[tuple[int, int, Path]]:
    certificate, key = _certificate(folder)
    port, plain_port = _free_port(), _free_port()
    text = CONFIG.read_text()
    for old, new in (
        ("server 127.0.0.1:8480;", f"server 127.0.0.1:{gateway_port};"),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{port} ssl http2;"),
        ("    listen [::]:443 ssl http2;\n", ""),
        ("listen 80;", f"listen 127.0.0.1:{plain_port};"),
        ("    listen [::]:80;\n", ""),
        ("/etc/ssl/gw.example.com.pem", str(certificate)),
        ("/etc/ssl/gw.example.com.key", str(key)),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    main = folder / "nginx.conf"
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main.write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{ worker_connections 256; }}\nhttp {{ access_log off; {paths}\n{text}\n}}\n"
    )
    with subprocess.Popen(["nginx", "-e", f"{folder}/error.log", "-p", str(folder), "-c", str(main)]) as process:
        try:
            wait_until(lambda: _answers(port) or process.poll() is not None, "nginx answers")
            assert process.poll() is None, (folder / "error.log").read_text()
            yield port, plain_port, certificate
        finally:
            process.terminate()
            process.wait(10)


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAMES[0])])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(text) for text in NAMES]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    public, private = folder / "cert.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return public, private


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_http2_and_the_probe_of_other_nodes(front: Front) -> None:
    """The probe that Kubo sends is answered over HTTP/2, which it insists on."""
    got = front.curl(
        "gw.example.com", "/ipfs/bafkqaaa?format=raw", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"
    )
    assert got.stdout == b"2 200", got.stderr
    host = "bafkqaaa.ipfs.gw.example.com"
    got = front.curl(host, "/?format=raw", "-o", "/dev/null", "-w", "%{http_version} %{http_code}")
    assert got.stdout == b"2 200", got.stderr


def test_redirects_keep_scheme_and_port(front: Front) -> None:
    """A path is sent to its subdomain under https, and plain HTTP to TLS."""
    got = front.curl("gw.example.com", f"/ipfs/{front.root}/x", "-o", "/dev/null", "-w", "%{redirect_url}")
    assert got.stdout.decode() == f"https://{front.root}.ipfs.gw.example.com:{front.port}/x"
    got = front.curl("gw.example.com", "/x%2Fy", "-o", "/dev/null", "-w", "%{redirect_url}", port=front.plain_port)
    assert got.stdout.decode() == f"https://gw.example.com:{front.plain_port}/x%2Fy"


def test_names_come_through_as_they_were_written(front: Front) -> None:
    """%2F and %25 in a name reach the gateway undecoded; a large file comes whole, a part as a part."""
    host = f"{front.root}.ipfs.gw.example.com"
    assert front.curl(host, "/a%252Fb%20c.txt").stdout == b"odd"
    assert front.curl(host, "/big.bin").stdout == BIG
    assert front.curl(host, "/big.bin", "-r", "1000-1009").stdout == BIG[1000:1010]
