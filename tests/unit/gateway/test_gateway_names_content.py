"""What lies below a name is what lies below the root that it means: files, documents, blocks, by path, Host, tunnel."""

from __future__ import annotations

import socket
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fungistor.dag import ipld
from fungistor.dag.cid import CID, DAG_CBOR, DAG_JSON, DAG_PB
from fungistor.dag.multibase import encode_base58
from fungistor.dag.walk import resolve
from fungistor.names.protobuf import Fields, encode_bytes, encode_number
from fungistor.names.public_key import KeyType, PublicKey
from fungistor.names.record import create, parse
from fungistor.testing.memory_content import MemoryContent, MemorySource
from tests.unit.gateway.formats_site import put
from tests.unit.gateway.naming import KEY, Named, serving_names
from tests.unit.names.signing import DAY_S, NOW_S, Signer

WEEK = "public, max-age=604800, stale-while-revalidate=2678400"
IMMUTABLE = "public, max-age=29030400, immutable"
PAGE = b"<h1>index of root4</h1>"
BELOW, JSON_KEY, CBOR_KEY = Signer(11), Signer(12), Signer(13)
TYPES = {"json": "application/vnd.ipld.dag-json", "cbor": "application/vnd.ipld.dag-cbor"}


@pytest.fixture(scope="module")
def named() -> Iterator[Named]:
    content = MemoryContent()
    root = content.add_tree({"root2": {"root3": {"root4": {"index.html": PAGE}}}, "hello.txt": b"hello"}).cid
    json_root = put(content, DAG_JSON, b'{"hello":"linked"}')
    cbor_root = put(content, DAG_CBOR, ipld.encode(DAG_CBOR, {"hello": "linked"}))
    with serving_names(content, root) as served:
        served.records.add(BELOW.record(f"/ipfs/{root}/root2"))
        served.records.add(JSON_KEY.record(f"/ipfs/{json_root}"))
        served.records.add(CBOR_KEY.record(f"/ipfs/{cbor_root}"))
        served.dns.texts["_dnslink.base58.example.org"] = f"/ipns/{encode_base58(KEY.name.multihash)}"
        yield served


def _at(named: Named, *names: str) -> CID:
    return resolve(MemorySource(named.live.content), named.root, names).cid


def _roots(named: Named, *names: str) -> str:
    return ",".join(str(_at(named, *names[:depth])) for depth in range(len(names) + 1))


@pytest.mark.parametrize("namespace", ["ipfs", "ipns"])
def test_deep_paths(named: Named, namespace: str) -> None:
    """Every CID on the way is told; a listing, a folder with an index and a file have their own tags and ages."""
    base = f"/ipfs/{named.root}" if namespace == "ipfs" else f"/ipns/{KEY.text}"
    names = ("root2", "root3", "root4")
    age = IMMUTABLE if namespace == "ipfs" else "public, max-age=1800"
    for below, path, tag in (
        ("/root2/root3/", names[:2], f"_CID-{_at(named, *names[:2])}"),
        ("/root2/root3/root4/", names, str(_at(named, *names))),
        ("/root2/root3/root4/index.html", (*names, "index.html"), str(_at(named, *names, "index.html"))),
    ):
        answer = named.live.get(f"{base}{below}")
        assert answer.status_code == 200
        assert answer.headers["x-ipfs-path"] == f"{base}{below}"
        assert answer.headers["x-ipfs-roots"] == _roots(named, *path)
        if below.endswith("root3/"):
            assert answer.headers["etag"].startswith('"DirIndex-')
            assert answer.headers["etag"].endswith(f'{tag}"')
            week = WEEK if namespace == "ipfs" else f"{age}, stale-while-revalidate=2678400"
            assert answer.headers["cache-control"] == week
        else:
            assert (answer.content, answer.headers["etag"]) == (PAGE, f'"{tag}"')
            assert answer.headers["cache-control"] == age
        again = named.live.get(f"{base}{below}", If_None_Match=answer.headers["etag"])
        assert (again.status_code, again.content) == (304, b"")
    block = named.live.get(f"{base}/root2/root3?format=raw")
    assert (block.status_code, block.content) == (200, named.live.content.blocks[_at(named, *names[:2]).multihash])
    assert block.headers["cache-control"] == age


def test_a_record_that_means_a_path(named: Named) -> None:
    """The path of a record's value comes before the path that is asked for."""
    answer = named.live.get(f"/ipns/{BELOW.text}/root3/root4/index.html")
    assert (answer.status_code, answer.content) == (200, PAGE)
    assert answer.headers["x-ipfs-path"] == f"/ipns/{BELOW.text}/root3/root4/index.html"


@pytest.mark.parametrize(("kind", "signer"), [("json", JSON_KEY), ("cbor", CBOR_KEY)])
def test_documents_below_names(named: Named, kind: str, signer: Signer) -> None:
    """A name of a linked document gives its very block by each way of asking, and a page to a browser."""
    record = named.records.newest(signer.name)
    assert record is not None
    cid = CID.parse(record.value.removeprefix("/ipfs/"))
    block, base = named.live.content.blocks[cid.multihash], f"/ipns/{signer.text}"
    for target, accept in ((base, "*/*"), (f"{base}?format=dag-{kind}", "*/*"), (base, TYPES[kind])):
        answer = named.live.get(target, Accept=accept)
        assert (answer.status_code, answer.content) == (200, block)
        assert answer.headers["content-type"] == TYPES[kind]
        assert answer.headers["etag"] == f'"{cid}.dag-{kind}"'
        assert (answer.headers["x-ipfs-path"], answer.headers["x-ipfs-roots"]) == (base, str(cid))
        assert answer.headers["cache-control"] == "public, max-age=1800"
    page = named.live.get(f"{base}/", Accept="text/html")
    assert (page.status_code, page.text.endswith("</html>\n")) == (200, True)
    assert page.headers["etag"].startswith('"DagIndex-')
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"].startswith("public, max-age=1800")
    assert "content-disposition" not in page.headers


def _with_broken_v1(encoded: bytes) -> bytes:
    values = Fields.read(encoded).values | {2: bytes(64)}
    return b"".join(
        encode_bytes(number, item) if isinstance(item, bytes) else encode_number(number, item)
        for number, item in values.items()
    )


@pytest.mark.parametrize(
    ("seed", "encode"),
    [
        (21, lambda signer, value: signer.encode(value)),
        (22, lambda signer, value: signer.encode(value, with_v1=False)),
        (23, lambda signer, value: _with_broken_v1(signer.encode(value))),
    ],
    ids=["versions 1 and 2", "version 2 alone", "version 1 broken"],
)
def test_records_that_prove_enough(named: Named, seed: int, encode: Callable[[Signer, str], bytes]) -> None:
    """The signature of version 2 decides: the content is served, and the record is given as it was signed."""
    signer = Signer(seed)
    named.records.add(parse(signer.name, encode(signer, "/ipfs/bafkqabtimvwgy3yk")))
    assert named.live.get(f"/ipns/{signer.text}").content == b"hello\n"
    kind = "application/vnd.ipfs.ipns-record"
    for target, accept in ((f"/ipns/{signer.text}?format=ipns-record", "*/*"), (f"/ipns/{signer.text}", kind)):
        answer = named.live.get(target, Accept=accept)
        assert answer.headers["content-type"] == kind
        assert answer.headers["cache-control"] == "public, max-age=1800"
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert parse(signer.name, answer.content).value == "/ipfs/bafkqabtimvwgy3yk"
    target = f"/ipns/{signer.text}?format=ipns-record&filename=test%D1%82%D0%B5%D1%81%D1%82.ipns-record"
    told = "attachment; filename=\"test____.ipns-record\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.ipns-record"
    assert named.live.get(target).headers["content-disposition"] == told


def test_names_of_rsa_keys(named: Named) -> None:
    """A key too long for its name is known by its hash: the old form is sent to the new, by path and by Host."""
    private = rsa.generate_private_key(65537, 2048)
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    public = PublicKey(KeyType.RSA, der)

    def sign(message: bytes) -> bytes:
        return private.sign(message, padding.PKCS1v15(), SHA256())

    record = parse(public.name, create("/ipfs/bafkqabtimvwgy3yk", 0, NOW_S + DAY_S, 1800, public, sign))
    named.records.add(record)
    old, new = encode_base58(public.name.multihash), public.name.text("base36")
    assert old.startswith("Qm")
    by_path = named.live.get(f"/ipns/{old}/root2/")
    assert (by_path.status_code, by_path.headers["location"]) == (302, f"/ipns/{new}/root2/")
    for asked in (old, new):
        moved = named.live.get(f"/ipns/{asked}", Host="example.com")
        assert (moved.status_code, moved.headers["location"]) == (301, f"http://{new}.ipns.example.com/")
    assert named.live.get("/", Host=f"{new}.ipns.example.com").content == b"hello\n"
    wrong = CID(1, DAG_PB, public.name.multihash).text("base36")
    moved = named.live.get("/", Host=f"{wrong}.ipns.example.com")
    assert (moved.status_code, moved.headers["location"]) == (301, f"http://{new}.ipns.example.com/")


@pytest.mark.parametrize("name", ["base58.example.org", "my-site.example.org"])
def test_websites_that_mean_keys(named: Named, name: str) -> None:
    """A DNSLink to a key, written in base58 or as a CID, is followed: for its own Host, and below a gateway's."""
    label = name.replace("-", "--").replace(".", "-")
    for host in (name, f"{name}.ipns.example.com", f"{label}.ipns.example.com"):
        assert named.live.get("/hello.txt", Host=host).content == b"hello"


def test_a_proxy_gives_what_a_subdomain_gives(named: Named) -> None:
    """A proxy's absolute request and a tunnel give what a subdomain gives: its files, and redirects to it."""
    content, port = named.live.content, named.live.port
    site = content.add_tree({"ipfs": {"file.txt": b"in a folder ipfs"}, "a.txt": b"a"}).cid
    v0 = CID(0, DAG_PB, site.multihash)
    own = f"{site}.ipfs.example.com"
    asked = (
        (own, "/ipfs/file.txt", b"in a folder ipfs"),
        (own, "/a.txt", b"\r\n\r\na"),
        ("example.com", f"/ipfs/{v0}/", f"location: http://{own}/\r\n".encode()),
    )
    for host, path, wanted in asked:
        plain = f"GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        assert wanted in named.live.exchange(plain.encode())
        with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
            peer.sendall(f"CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n".encode())
            assert peer.recv(1000).startswith(b"HTTP/1.1 200 ")
            peer.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            got = b""
            while part := peer.recv(65536):
                got += part
            assert wanted in got


def test_a_car_of_what_nobody_has(named: Named) -> None:
    """A CAR or an archive whose root is not here is 404, not an empty one that looks whole."""
    absent = "bafybeiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    for form in ("car", "tar", "zip", "raw"):
        for path in ("", "/below"):
            assert named.live.get(f"/ipfs/{absent}{path}?format={form}").status_code == 404, form


def test_identity_cids_have_a_bound(named: Named) -> None:
    """A CID holds 128 bytes of its own at most; a longer one is refused, by path and by Host."""
    longest = CID.parse(CID(1, 0x55, bytes((0, 0x80, 1)) + b"x" * 128).encode())
    assert named.live.get(f"/ipfs/{longest}").content == b"x" * 128
    longer = CID(1, 0x55, bytes((0, 0x81, 1)) + b"x" * 129)
    assert named.live.get(f"/ipfs/{longer}").status_code == 400
    assert named.live.get("/", Host=f"{longer}.ipfs.example.com").status_code == 400


def test_an_archive_below_a_name(named: Named) -> None:
    """An archive of a name has its entries below the root that the name means."""
    body = named.live.get(f"/ipns/{KEY.text}/root2?format=tar").content
    with tarfile.open(fileobj=BytesIO(body)) as tar:
        assert f"{_at(named, 'root2')}/root3/root4/index.html" in tar.getnames()
