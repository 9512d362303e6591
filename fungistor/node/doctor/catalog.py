"""The catalog: its files whole, its log to be had, all of it applied, and the same on every node."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

from fungistor.catalog.catalog import Catalog
from fungistor.errors import FungiStorError
from fungistor.node.doctor.finding import Finding, bad, good, of_error
from fungistor.node.home import Home

AREA = "catalog"
WHOLE_CHECK_BYTES_MAX = 256 << 20
"""Larger files are checked without their indexes' order, at a tenth of the time."""

BUSY_S = 5.0


def look_at_files(home: Home) -> Iterator[Finding]:
    """SQLite's own check of each file."""
    remedies = {
        home.catalog_log: "restore the catalog's backup; what it lacks, the pool may still have",
        home.catalog_state: "stop everything and delete it: it is filled anew from the log",
        home.key_table: "restore it from a backup, or follow the shared table anew: objects without it are lost",
        home.name_table: "delete it: own names are signed anew, others are to be imported again",
        home.block_index: "stop everything and delete it: it is built anew",
    }
    whole = []
    for path, remedy in remedies.items():
        if not os.path.exists(path):
            continue
        wrong = _wrong_with(path)
        if wrong:
            yield bad(AREA, f"{path} is damaged: {wrong}", remedy)
        else:
            whole.append(os.path.basename(path))
    if whole:
        yield good(AREA, f"whole: {', '.join(whole)}")


def _wrong_with(path: str) -> str:
    check = "integrity_check" if os.path.getsize(path) <= WHOLE_CHECK_BYTES_MAX else "quick_check"
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=BUSY_S)) as connection:
            (said,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return "" if said == "ok" else str(said)


def look_at_catalog(catalog: Catalog) -> Iterator[Finding]:
    """Whether it can be written, and how far this node has followed."""
    try:
        epoch = catalog.fence()
        catalog.catch_up()
    except FungiStorError as error:
        yield of_error(AREA, error)
        epoch = None
    status = catalog.status()
    if status.stopped is not None:
        yield bad(AREA, f"it stands still: {status.stopped}", "update fungistor on this machine; reads go on meanwhile")
    elif status.behind:
        yield bad(AREA, f"this node is behind, at revision {status.revision}", "start `up`; see its log if it stays so")
    elif epoch is not None:
        yield good(AREA, f"revision {status.revision}, {status.objects} objects, epoch {epoch}, followed to the end")
    for report in catalog.reports():
        if report.agrees is False:
            yield bad(
                AREA,
                f"node {report.name} has another state than this one at the same place of the log",
                "stop both, delete catalog/state.sqlite on both, start again; then report it: this must not happen",
            )
