"""The walk: order, what is left out, what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fungistor.errors import FailedError, InvalidError, NotFoundError
from fungistor.objects import scan as scanning
from fungistor.objects.scan import Enter, File, Leave, ScanRules, Skipped, Symlink, scan, shown, total_size
from tests.unit.objects.trees import write

PLAIN = ScanRules()
NOBODY = 65534


def outline(path: Path, rules: ScanRules = PLAIN) -> list[str]:
    """The events of a walk, a word each."""
    words = []
    for event in scan(os.fsencode(path), rules):
        match event:
            case Enter(name):
                words.append(f"<{shown(name)}")
            case Leave():
                words.append(">")
            case File(name):
                words.append(shown(name))
            case Symlink(name, target):
                words.append(f"{shown(name)}->{shown(target)}")
            case Skipped(skipped):
                words.append(f"-{shown(os.path.basename(skipped))}")
    return words


@contextmanager
def unprivileged() -> Iterator[None]:
    """Permissions hold for us, too, though the tests may run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_entries_come_in_the_order_of_their_names_bytes(tree: Path) -> None:
    """Capitals before small letters, ASCII before the rest, a folder at its name's place, whatever the disk's order."""
    for name in ("b", "a/2", "a/10", "B", "ä", "a.txt", "a-1"):
        write(tree, name, b"")
    assert outline(tree) == ["<tree", "B", "<a", "10", "2", ">", "a-1", "a.txt", "b", "ä", ">"]


def test_a_name_that_is_no_text_is_carried_as_it_is(tree: Path) -> None:
    """Names are bytes: one that is not UTF-8 neither fails nor changes."""
    (Path(os.fsdecode(os.fsencode(tree) + b"/\xff\xfe"))).write_bytes(b"x")
    names = [event.name for event in scan(os.fsencode(tree), PLAIN) if isinstance(event, File)]
    assert names == [b"\xff\xfe"]
    assert shown(names[0]) == "\\xff\\xfe"


def test_hidden_entries_are_left_out_and_told(tree: Path) -> None:
    """A hidden file or folder is one Skipped event, unless it was asked for."""
    write(tree, ".git/config", b"x")
    write(tree, ".env", b"x")
    write(tree, "seen", b"x")
    assert outline(tree) == ["<tree", "-.env", "-.git", "seen", ">"]
    assert outline(tree, ScanRules(hidden=True)) == ["<tree", ".env", "<.git", "config", ">", "seen", ">"]


def test_a_hidden_path_that_is_named_is_taken(tree: Path) -> None:
    """Hiding is for what lies below: who names a hidden path means it."""
    path = write(tree, ".secret/file", b"x").parent
    assert outline(path) == ["<.secret", "file", ">"]


def test_links_are_not_followed(tree: Path) -> None:
    """A symbolic link is itself, be it dangling, a loop or the root."""
    (tree / "dangling").symlink_to("nowhere")
    (tree / "loop").symlink_to(".")
    assert outline(tree) == ["<tree", "dangling->nowhere", "loop->.", ">"]
    assert outline(tree / "loop") == ["loop->."]


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_what_is_no_file_is_refused_by_name(tree: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A special file ends the walk with the path in the message, and is never opened."""
    monkeypatch.chdir(tree)
    if kind == "fifo":
        os.mkfifo("odd")
    else:
        os.mknod("odd", 0o600 | 0o140000)
    with pytest.raises(InvalidError, match=r"odd: is neither a file, a folder nor a symbolic link"):
        outline(tree)


def test_what_cannot_be_read_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without permission ends the walk with the reason of the system."""
    write(tree, "locked/file", b"x")
    (tree / "locked").chmod(0)
    monkeypatch.chdir(tree)
    with unprivileged(), pytest.raises(FailedError, match=r"locked: cannot be read: Permission denied"):
        outline(Path("locked"))
    (tree / "locked").chmod(0o700)


def test_nothing_there_is_told_apart_from_unreadable(tree: Path) -> None:
    """A missing path is not found; a path below a file cannot be read."""
    write(tree, "file", b"")
    with pytest.raises(NotFoundError, match="no such file or folder"):
        outline(tree / "nothing")
    with pytest.raises(FailedError, match="Not a directory"):
        outline(tree / "file" / "below")


def test_depth_is_bounded(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many folders as allowed are walked, one more is refused."""
    monkeypatch.setattr(scanning, "DEPTH_MAX", 5)
    write(tree, "1/2/3/4/file", b"")
    assert outline(tree).count(">") == 5
    write(tree, "1/2/3/4/5/file", b"")
    with pytest.raises(InvalidError, match="lies deeper than 5 folders"):
        outline(tree)


def test_attributes_are_taken_only_when_asked_for(tree: Path) -> None:
    """Mode and time travel each on its own, the time to the nanosecond, before 1970 as well."""
    path = write(tree, "file", b"")
    path.chmod(0o640)
    os.utime(path, ns=(0, -1_500_000_000))
    for mode, mtime in ((False, False), (True, False), (False, True), (True, True)):
        [event] = scan(os.fsencode(path), ScanRules(preserve_mode=mode, preserve_mtime=mtime))
        assert isinstance(event, File)
        assert event.attributes.mode == (0o640 if mode else None)
        assert event.attributes.mtime_ns == (-1_500_000_000 if mtime else None)
        if mtime:
            assert event.attributes.mtime is not None
            assert (event.attributes.mtime.seconds, event.attributes.mtime.nanos) == (-2, 500_000_000)


def test_sizes_are_summed_until_it_is_enough(tree: Path) -> None:
    """The sum counts what would be published; with a bound it stops at the file that exceeds it."""
    for number in range(10):
        write(tree, f"{number}", bytes(100))
    write(tree, ".hidden", bytes(1000))
    assert total_size(os.fsencode(tree), PLAIN) == 1000
    assert total_size(os.fsencode(tree), ScanRules(hidden=True)) == 2000
    assert total_size(os.fsencode(tree), PLAIN, 250) == 300
