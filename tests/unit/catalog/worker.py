"""A publisher process: commits objects and prints a line for each acknowledged one.

`python -m tests.unit.catalog.worker FOLDER FIRST COUNT`; waits for a line on stdin after "ready".
"""

from __future__ import annotations

import os
import sys

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.state import State
from tests.unit.catalog.samples import command, owing, publish


def open_catalog(folder: str) -> Catalog:
    """The catalog in a folder, as a node lays it out."""
    return Catalog(SqliteLog(os.path.join(folder, "log.db")), State(os.path.join(folder, "state.db")))


def main() -> None:
    """Commit objects FIRST..FIRST+COUNT-1."""
    folder, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print("ready", flush=True)
    sys.stdin.readline()
    catalog = open_catalog(folder)
    for number in range(first, first + count):
        outcome = catalog.commit(command(publish(number, owed=owing((1 + number % 20, 2)))))
        print(number, outcome.revision, flush=True)
    catalog.close()


if __name__ == "__main__":
    main()
