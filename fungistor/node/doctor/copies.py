"""The catalog's copies in the pool: whether a rebuild would have all of it."""

from __future__ import annotations

from collections.abc import Iterator

from fungistor.node.copies.copier import Copier
from fungistor.node.doctor.finding import Finding, bad, good, unknown

AREA = "catalog"


def look_at_copies(copier: Copier) -> Iterator[Finding]:
    """How far the pool has the catalog, and on how many members the newest entry lies."""
    lag = copier.lag()
    if lag is None:
        yield unknown(AREA, "the pool is still being given what was committed before it kept copies: `up` does it")
        return
    if lag:
        yield bad(
            AREA,
            f"the pool lacks the newest {lag} entries of the catalog: a rebuild would not have them",
            "`up` brings them as soon as enough members answer; see its log",
        )
    sound, needed = copier.copies_of_newest()
    if sound < needed:
        yield bad(
            AREA,
            f"the newest entry of the catalog lies on {sound} members that answer, {needed} are to have it",
            "start the members that are down; or stop all, delete catalog/copies.json, and `up` brings all again",
        )
    elif not lag:
        yield good(AREA, f"the pool has all of it, the newest entry on {sound} members")
    if not copier.keeps_keys():
        yield bad(
            AREA,
            "keys are not in the pool, as too few members can wipe what is deleted: a rebuild would open nothing",
            "back up catalog/ and keys/; or replace original 0-dbs by `fungistor zdb`",
        )
