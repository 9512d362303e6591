"""The lists of some folders, read anew when a file has changed."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fungistor.errors import FungiStorError
from gateway.denylist.parsing import LINE_BYTES_MAX, BadLine, Rule, parse
from gateway.denylist.rules import Rules

SUFFIX = ".deny"
BAD_LINES_TOLD_MAX = 20

log = logging.getLogger("gateway.denylist")

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _List:
    stamp: Stamp
    rules: tuple[Rule, ...]


def standard_folders(home: str) -> list[str]:
    """Where lists are looked for: as other implementations do, and in the home."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return ["/etc/ipfs/denylists", os.path.join(config, "ipfs", "denylists"), os.path.join(home, "denylists")]


class Denylists:
    """`rules` are those of the files as they were at the last `refresh`.

    A file that cannot be read keeps its earlier rules: an editor's half-written file must not let everything through.
    """

    def __init__(self, folders: Sequence[str], on_change: Callable[[], None] = lambda: None) -> None:
        self._folders = folders
        self._on_change = on_change
        self._lock = threading.Lock()
        self._lists: dict[str, _List] = {}
        self._seen: dict[str, Stamp] | None = None
        self.rules = Rules()
        self.refresh()

    def look_in(self, folders: Sequence[str]) -> None:
        """Look in other folders from the next `refresh` on."""
        with self._lock:
            self._folders = tuple(folders)

    def refresh(self) -> bool:
        """Look at the folders; True where something has changed."""
        with self._lock:
            found = dict(self._stamps())
            if found == self._seen:
                return False
            self._seen = found
            lists: dict[str, _List] = {}
            for path, stamp in found.items():
                kept = self._lists.get(path)
                taken = kept if kept is not None and kept.stamp == stamp else _take(path, stamp) or kept
                if taken is not None:
                    lists[path] = taken
            self._lists = lists
            self.rules = Rules(rule for path in sorted(lists, key=_order) for rule in lists[path].rules)
            if found:
                log.info("%d rules of %d denylists hold", self.rules.count, len(lists))
        self._on_change()
        return True

    def _stamps(self) -> Iterator[tuple[str, Stamp]]:
        for folder in self._folders:
            try:
                names = os.listdir(folder)
            except OSError:
                continue
            for name in names:
                path = os.path.join(folder, name)
                if name.endswith(SUFFIX):
                    try:
                        status = os.stat(path)
                    except OSError:
                        continue
                    yield path, (status.st_ino, status.st_size, status.st_mtime_ns)


def _take(path: str, stamp: Stamp) -> _List | None:
    try:
        return _List(stamp, tuple(_read(path)))
    except (FungiStorError, OSError) as error:
        log.error("denylist %s is not taken: %s", path, error)
        return None


def _order(path: str) -> tuple[str, str]:
    """Alphabetical by file name, as the format says; rules of later lists override."""
    return os.path.basename(path), path


def _read(path: str) -> Iterator[Rule]:
    bad = 0
    with open(path, "rb") as file:
        for found in parse(iter(lambda: file.readline(LINE_BYTES_MAX + 1), b"")):
            if isinstance(found, BadLine):
                bad += 1
                if bad <= BAD_LINES_TOLD_MAX:
                    log.error("denylist %s, line %d is passed over: %s", path, found.line, found.why)
            else:
                yield found
    if bad > BAD_LINES_TOLD_MAX:
        log.error("denylist %s: %d more lines are passed over", path, bad - BAD_LINES_TOLD_MAX)
