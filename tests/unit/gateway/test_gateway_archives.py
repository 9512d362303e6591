"""TAR and ZIP: what unpacks to what, and what no archive may hold."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator

import httpx
import pytest

from fungistor.dag.cid import DAG_CBOR
from fungistor.dag.importer import Link, build_symlink
from fungistor.dag.profiles import DEFAULT_PROFILE
from fungistor.dag.unixfs import Mtime
from fungistor.errors import UnavailableError
from fungistor.testing.memory_content import MemoryContent
from tests.unit.gateway.formats_site import MULTI, Site, directory_of, formats_site, put
from tests.unit.gateway.live import serving

TYPES = {"tar": "application/x-tar", "zip": "application/zip"}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with formats_site() as made:
        yield made


def unpack(form: str, body: bytes) -> dict[str, bytes]:
    """Return the files of an archive by name, read by a stock reader that checks it."""
    if form == "tar":
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            files = {entry.name: tar.extractfile(entry) for entry in tar if entry.isfile()}
            return {name: file.read() for name, file in files.items() if file is not None}
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        return {info.filename: archive.read(info) for info in archive.infolist() if info.external_attr >> 28 == 8}


@pytest.mark.parametrize("form", ["tar", "zip"])
@pytest.mark.parametrize("by", ["query", "accept"])
def test_file(site: Site, form: str, by: str) -> None:
    """One file is an archive of one entry, named by its CID."""
    cid = site.at(site.tree, "subdir/ą/file-źł.txt")
    target = f"/ipfs/{cid}"
    query, accept = (f"?format={form}", "*/*") if by == "query" else ("", TYPES[form])
    answer = site.live.get(f"{target}{query}", Accept=accept)
    assert answer.status_code == 200
    assert unpack(form, answer.content) == {str(cid): b"utf8 name"}
    fields = answer.headers
    assert fields["content-type"] == TYPES[form]
    assert fields["content-disposition"].startswith(f'attachment; filename="{cid}.{form}"')
    assert fields["etag"] == f'W/"{cid}.{"x-tar" if form == "tar" else "zip"}"'
    assert ("content-location" in fields) == (by == "accept")
    again = site.live.get(f"{target}?format={form}", If_None_Match=fields["etag"])
    assert (again.status_code, again.content) == (304, b"")
    head = site.live.request("HEAD", f"{target}?format={form}")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_folder(site: Site, form: str) -> None:
    """A folder unpacks whole below a top folder of its CID's name."""
    cid = site.at(site.tree, "subdir")
    found = unpack(form, site.live.get(f"{site.path}/subdir?format={form}").content)
    assert found == {f"{cid}/multi.bin": MULTI, f"{cid}/ą/file-źł.txt": b"utf8 name"}


def test_symlinks_and_modes(site: Site) -> None:
    """A symlink that stays inside is kept as one; folders can be entered, files read, and nothing runs as its owner."""
    answer = site.live.get(f"{site.path}?format=tar")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        entry = tar.getmember(f"{site.tree}/link")
        assert (entry.issym(), entry.linkname) == (True, "subdir/multi.bin")
        assert tar.getmember(f"{site.tree}/up/link").linkname == "../ascii.txt"
        assert {entry.mode for entry in tar if entry.isdir()} == {0o755}
        assert {entry.mode for entry in tar if entry.isfile()} == {0o644}


def test_filename(site: Site) -> None:
    """?filename= names the archive for old clients, one _ a character, and for new ones."""
    answer = site.live.get(f"{site.path}?format=tar&filename=test%D1%82%D0%B5%D1%81%D1%82.tar")
    expected = "attachment; filename=\"test____.tar\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.tar"
    assert answer.headers["content-disposition"] == expected


@pytest.mark.parametrize("form", ["tar", "zip"])
@pytest.mark.parametrize("name", [b"../foo", b"a/../../foo", b"..", b"a\0b", b"x" * 5000])
def test_names_that_lead_out(form: str, name: bytes) -> None:
    """A name that leads out of the top folder, or that no file can have, is refused before the first byte."""
    content = MemoryContent()
    file = content.add_file(b"x")
    root = directory_of(content, Link(name, file.cid, file.tsize))
    with serving(content) as live:
        answer = live.get(f"/ipfs/{root}?format={form}")
    assert answer.status_code == 406
    assert "leads out" in answer.text


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_names_that_stay_inside(form: str) -> None:
    """A name with .. that stays inside is written as the plain path it stands for; /etc is below the top folder."""
    content = MemoryContent()
    file = content.add_file(b"x")
    inner = directory_of(content, Link(b"../file", file.cid, 1), Link(b"/etc/passwd", file.cid, 1))
    root = directory_of(content, Link(b"foobar", inner, 1))
    with serving(content) as live:
        found = unpack(form, live.get(f"/ipfs/{root}?format={form}").content)
    assert found == {f"{root}/file": b"x", f"{root}/foobar/etc/passwd": b"x"}


@pytest.mark.parametrize("form", ["tar", "zip"])
@pytest.mark.parametrize("target", [b"/etc", b"..", b"a/../../b", b""])
def test_symlinks_that_lead_out(form: str, target: bytes) -> None:
    """A symlink out of the archive is refused: what is unpacked after it could be written through it."""
    content = MemoryContent()
    link = build_symlink(DEFAULT_PROFILE, target, content.emit)
    root = directory_of(content, Link(b"link", link.cid, link.tsize))
    with serving(content) as live:
        assert live.get(f"/ipfs/{root}?format={form}").status_code == 406


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_what_is_no_file(form: str) -> None:
    """Linked data has no files in it: 406, also where it lies in a folder."""
    content = MemoryContent()
    document = put(content, DAG_CBOR, b"\xa0")
    root = directory_of(content, Link(b"document", document, 1))
    with serving(content) as live:
        assert live.get(f"/ipfs/{document}?format={form}").status_code in (400, 406)
        assert live.get(f"/ipfs/{root}?format={form}").status_code == 406


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_times(form: str) -> None:
    """Times are kept where the format can hold them."""
    content = MemoryContent()
    file = content.add_file(b"old news", mtime=Mtime(1445412480))
    with serving(content) as live:
        body = live.get(f"/ipfs/{file.cid}?format={form}").content
    if form == "tar":
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            assert tar.getmembers()[0].mtime == 1445412480
    else:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            assert archive.infolist()[0].date_time == (2015, 10, 21, 7, 28, 0)


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_broken_off(form: str) -> None:
    """A block that is gone half-way resets the connection; no archive ends early as if it were whole."""
    content = MemoryContent()
    root = content.add_tree({f"{number}.bin": bytes([number]) * 300_000 for number in range(8)})
    with serving(content) as live:
        assert len(unpack(form, live.get(f"/ipfs/{root.cid}?format={form}").content)) == 8
        bound = len(content.asked) * 2 - 3
        content.fault = lambda _: UnavailableError("gone") if len(content.asked) > bound else None
        with pytest.raises(httpx.HTTPError):
            live.get(f"/ipfs/{root.cid}?format={form}")
