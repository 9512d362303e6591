"""The log on three real etcd members: fail-over, a lost quorum, users and TLS."""

from __future__ import annotations

import datetime as dt
import ipaddress
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fungistor.catalog.engines.etcd import EtcdLog
from fungistor.catalog.engines.etcd_client import EtcdAddress, EtcdClient, EtcdLogin, packed, parse_etcd_url
from fungistor.catalog.log import START
from fungistor.errors import DeniedError, InvalidError, UnavailableError
from tests.contracts.etcd_world import EtcdCluster, etcd_cluster


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EtcdCluster]:
    with etcd_cluster(tmp_path / "etcd", 3) as cluster:
        cluster.wait_ready()
        yield cluster


def until_up(log: EtcdLog, payload: bytes) -> None:
    """Append as soon as there is a quorum; repeated, as a publisher does, so it may be there twice."""
    for _ in range(60):
        try:
            log.append(0, [payload])
        except UnavailableError:
            continue
        return
    raise AssertionError("etcd did not come back")


def test_any_member_may_die_and_the_log_goes_on(three: EtcdCluster) -> None:
    """With one of three members killed, whichever it is, what was acknowledged is read and new entries are appended."""
    log = EtcdLog(three.address("net"))
    acknowledged = []
    for number in range(3):
        payload = b"before %d" % number
        until_up(log, payload)
        acknowledged.append(payload)
        three.stop(number)
        payload = b"without %d" % number
        until_up(log, payload)
        acknowledged.append(payload)
        three.start(number)
        three.wait_ready()
    assert set(acknowledged) <= {entry.payload for entry in log.read(START)}
    log.close()


def test_without_a_quorum_writers_hear_of_it_and_nothing_is_lost(three: EtcdCluster) -> None:
    """Two of three members dead: UnavailableError names what is missing; with one back, the log goes on as it was."""
    log = EtcdLog(three.address("net"))
    log.append(0, [b"safe"])
    three.stop(0)
    three.stop(1)
    with pytest.raises(UnavailableError, match="etcd"):
        log.append(0, [b"no quorum"])
    three.start(0)
    until_up(log, b"again")
    found = [entry.payload for entry in log.read(START)]
    assert found[0] == b"safe"
    assert found[-1] == b"again"
    log.close()


def test_a_watcher_outlives_the_member_it_watches(three: EtcdCluster) -> None:
    """A wait that began on a member that dies is carried on with another."""
    address = three.address("net")
    log, writer = EtcdLog(address), EtcdLog(EtcdAddress(address.endpoints[1:], address.prefix))
    position = log.append(0, [b"a"])
    heard: list[bool] = []

    def watch() -> None:
        while not heard:
            try:
                heard.append(log.watch(position, 30))
            except UnavailableError:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    three.stop(0)
    until_up(writer, b"b")
    watcher.join(60)
    assert heard == [True]
    log.close()
    writer.close()


def test_users_are_let_in_by_password_only(three: EtcdCluster) -> None:
    """With etcd's users on, a wrong or missing password is DeniedError that does not tell it; the right one works."""
    address = three.address("net")
    admin = EtcdClient(address)
    for user in ("root", "publisher"):
        admin.change("auth/user/add", {"name": user, "password": f"{user}-secret"})
    admin.change("auth/role/add", {"name": "root"})
    admin.change("auth/role/add", {"name": "net"})
    own = {"permType": "READWRITE", "key": packed(b"net/"), "range_end": packed(b"net0")}
    admin.change("auth/role/grant", {"name": "net", "perm": own})
    admin.change("auth/user/grant", {"user": "root", "role": "root"})
    admin.change("auth/user/grant", {"user": "publisher", "role": "net"})
    admin.change("auth/enable", {})
    admin.close()
    log = EtcdLog(address, EtcdLogin("publisher", "publisher-secret"))
    log.append(0, [b"a"])
    assert [entry.payload for entry in log.read(START)] == [b"a"]
    log.close()
    for login in (EtcdLogin(), EtcdLogin("publisher", "wrong-secret")):
        refused = EtcdLog(address, login)
        with pytest.raises(DeniedError) as told:
            refused.append(0, [b"b"])
        assert "secret" not in str(told.value)
        refused.close()
    other = EtcdLog(EtcdAddress(address.endpoints, "elsewhere"), EtcdLogin("publisher", "publisher-secret"))
    with pytest.raises(DeniedError):
        other.append(0, [b"c"])
    other.close()


def test_tls_is_checked(tmp_path: Path) -> None:
    """With TLS the log works where the certificate is trusted, and is refused where it is not."""
    certificate, key = _certificate(tmp_path)
    tls = ["--cert-file", str(certificate), "--key-file", str(key)]
    with etcd_cluster(tmp_path / "etcd", 1, tls) as cluster:
        login = EtcdLogin(ca=str(certificate))
        cluster.wait_ready(login)
        log = EtcdLog(cluster.address("net"), login)
        log.append(0, [b"a"])
        assert [entry.payload for entry in log.read(START)] == [b"a"]
        log.close()
        stranger = EtcdLog(cluster.address("net"))
        with pytest.raises(UnavailableError, match="certificate"):
            stranger.epoch()
        stranger.close()


def test_urls() -> None:
    """A catalog URL names members and a prefix; secrets and nonsense in it are refused with the next step."""
    assert parse_etcd_url("etcd://a:2379,b:1/x/y") == EtcdAddress(("http://a:2379", "http://b:1"), "x/y")
    assert parse_etcd_url("etcds://a:2379") == EtcdAddress(("https://a:2379",), "fungistor")
    for wrong in ("etcd:a:1", "etcd://", "etcd://a", "etcd://a:x", "etcd://u:p@a:1", "http://a:1", "etcd://a:99999"):
        with pytest.raises(InvalidError):
            parse_etcd_url(wrong)


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "etcd for tests")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    own = folder / "etcd.pem", folder / "etcd.key"
    own[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    own[1].write_bytes(pem)
    return own
