"""Bring a network's catalog back from its members alone, into a home that has none.

All is read into a folder beside, which a run that was cut short leaves for the next; only when the catalog is whole by
its own digests does it take its place. It goes on under a log of its own: whoever still writes to the old one is told.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

from fungistor.errors import ConflictError
from fungistor.keys.ring import network_key_of
from fungistor.node.config import load_config
from fungistor.node.copies.findings import Asked, Rebuilt
from fungistor.node.copies.formats import LOG_BYTES, CopyFormats
from fungistor.node.copies.gathering import Gathering
from fungistor.node.copies.placing import Placing, Ready
from fungistor.node.home import Home
from fungistor.node.pool_file import load_pool
from fungistor.objects.results import Progress

FOLDER = "rebuild"


def rebuild(home: Home, asked: Asked, progress: Progress, say: Callable[[str], None]) -> Rebuilt:
    """Do it, or go on with it.

    Raises:
        ConflictError: this home has a catalog already.
        UnavailableError: too few members answer, and what is missing.
        DeniedError: the root key is another network's.
        NotFoundError: the members hold no network.
        CorruptError: an entry is missing between others.
    """
    started = time.monotonic()
    members = list(load_pool(asked.pool))
    _check_empty(home)
    if asked.dry_run:
        with (
            tempfile.TemporaryDirectory(prefix="fungistor-rebuild-") as folder,
            Gathering(folder, asked, members, progress) as gathering,
        ):
            found = gathering.read()
        return replace(found, seconds=time.monotonic() - started, dry_run=True)
    home.prepare()
    lock = home.lock()
    try:
        folder = home.path("catalog", FOLDER)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        formats = CopyFormats(network_key_of(asked.root))
        ready = Ready.load(folder, formats)
        if ready is None:
            with Gathering(folder, asked, members, progress) as gathering:
                found = gathering.read()
                ready = Ready(os.urandom(LOG_BYTES), gathering.anchor, gathering.last, found)
            ready.save(folder, formats)
        found = ready.found
        say(f"read: {found.objects} objects, {found.entries} entries of the log, {found.keys} keys")
        url = Placing(home, asked, folder, ready, progress).run()
        shutil.rmtree(folder)
    finally:
        os.close(lock)
    return replace(found, catalog=url, seconds=time.monotonic() - started)


def refuse_half_rebuilt(home: Home) -> None:
    """Raises: ConflictError where a rebuild of this home was cut short."""
    if os.path.isdir(home.path("catalog", FOLDER)):
        raise ConflictError(
            "a rebuild of this home's catalog was cut short",
            hint="`fungistor catalog rebuild --pool FILE` goes on with it",
        )


def _check_empty(home: Home) -> None:
    if not os.path.isdir(home.path("catalog", FOLDER)) and (home.has_catalog or load_config(home).pool is not None):
        raise ConflictError(
            f"{home.root} has a catalog already, and it is not touched",
            hint="rebuild into another --home; or move this one's catalog/ away first",
        )
