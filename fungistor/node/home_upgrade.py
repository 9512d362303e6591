"""From the home of an older version to this one's, a step a version, before anything of the network is started.

A step may be cut short and is then done again, so each leaves alone what it finds done. There is no way back: an older
program refuses the home from then on, as it would misread what the newer one writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing

from fungistor.keys.table import KeyTable
from fungistor.names.table import NameTable
from fungistor.node.files import write_atomic
from fungistor.node.home import HOME_VERSION, Home

Step = Callable[[Home], None]


def _names_of_its_own(home: Home) -> None:
    """0 to 1: names of the network's own stand beside imported records, and a root key may have 64 bytes."""
    if os.path.exists(home.name_table):
        NameTable(home.name_table).aliases()  # makes their table
    with closing(KeyTable(home.key_table)) as table:
        table.tenants()  # refuses what is no key table, before the home is marked


STEPS: tuple[Step, ...] = (_names_of_its_own,)
assert len(STEPS) == HOME_VERSION


def upgrade(home: Home) -> list[int]:
    """Bring a home to this program's version; the versions that it has passed. Called with the home's lock held.

    Raises: InvalidError where it is of a newer one; the errors of the step that cannot be done.
    """
    home.check_version()
    passed = []
    for version in range(home.version(), HOME_VERSION):
        STEPS[version](home)
        write_atomic(home.version_file, f"{version + 1}\n".encode())
        passed.append(version + 1)
    return passed
