"""ZIPs of many and of large members, read by the standard library's reader."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable

import pytest

from gateway.formats.zip_stream import HELD_BYTES, ZipMember, ZipStream

GIB = 1 << 30
TIME = (1980, 1, 1, 0, 0, 0)


def _file(name: str, size: int) -> ZipMember:
    return ZipMember(name, TIME, 0o100644, size)


def _archive(members: Iterable[tuple[ZipMember, bytes]], offset: int = 0) -> zipfile.ZipFile:
    stream = ZipStream()
    stream._offset = offset
    out = io.BytesIO()
    for member, content in members:
        for piece in stream.member(member, iter((content,))):
            out.write(piece)
    for piece in stream.end():
        out.write(piece)
    stream.close()
    return zipfile.ZipFile(out)


def test_more_members_than_the_old_form_counts() -> None:
    """70,000 members are all listed, and what of the directory does not fit in memory comes from a scratch file."""
    names = [f"folder/{number:05d}" for number in range(70_000)]
    assert 46 * len(names) > HELD_BYTES
    with _archive((_file(name, 0), b"") for name in names) as archive:
        assert archive.namelist() == names


@pytest.mark.parametrize("offset", [0, 4 * GIB - 40, 5 * GIB])
def test_members_far_into_an_archive(offset: int) -> None:
    """Members that begin beyond 4 GiB are found, and their checksums hold."""
    with _archive([(_file("a", 3), b"abc"), (_file("ą", 1), b"d")], offset) as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == {"a": b"abc", "ą": b"d"}


@pytest.mark.parametrize("size", [4 * GIB - 2, 4 * GIB - 1, 4 * GIB, 5 * GIB])
def test_sizes_around_the_old_limit(size: int) -> None:
    """The directory tells the size of a member of 4 GiB and more."""
    with _archive([(_file("large", size), b""), (_file("small", 1), b"x")]) as archive:
        assert [info.file_size for info in archive.infolist()] == [size, 1]
        assert archive.read("small") == b"x"
