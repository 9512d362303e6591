"""What a rebuild found in the pool, how far it can be proven to be all, and what it came to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from fungistor.errors import DeniedError, NotFoundError, UnavailableError
from fungistor.node.catalog_place import CatalogOptions
from fungistor.objects.results import Json
from fungistor.pool.keeping import losses_survived

NAMED_MAX = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """What a rebuild was told. `incomplete`: what is there is taken, though later commits may be missing."""

    pool: str
    root: bytes
    catalog: CatalogOptions
    incomplete: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A catalog brought back, or with `dry_run` what would be. `missing`: members of the network that did not answer
    or came back empty; `is_proven`: no later commit can have been acknowledged. `keys_missing`: objects and names
    whose key was nowhere."""

    objects: int
    names: int
    members: int
    nodes: int
    entries: int
    revision: int
    last_commit: int | None
    keys: int
    keys_missing: int
    missing: tuple[str, ...]
    is_proven: bool
    catalog: str = ""
    seconds: float = 0.0
    dry_run: bool = False

    def to_json(self) -> Json:
        """The keys of `--json`."""
        fields = {key: getattr(self, key) for key in self.__slots__ if key != "is_proven"}
        return fields | {"missing": list(self.missing), "proven": self.is_proven}


def nothing_found(answering: int, members: int, silent: Sequence[str], known_here: int, fingerprint: str) -> Exception:
    """Why there is nothing to begin with: nobody answers, another root key, or a network whose pool has no copies."""
    if not answering:
        return UnavailableError(
            f"none of the {members} members of the pool file answers ({named(silent)})",
            hint="start the members' daemons; the pool file has to have their addresses and passwords",
        )
    if known_here:
        return DeniedError(
            f"{known_here} of {members} members belong to a network, but none has a catalog that the root key with the "
            f"fingerprint {fingerprint} opens",
            hint="give that network's own root key: `fungistor keys import` takes words, shares and files",
        )
    return NotFoundError(
        f"{answering} of {members} members answer, and hold no network at all",
        hint="is this the right pool file? Members whose folders were wiped cannot help",
    )


def is_proven(members: int, missing: Sequence[str]) -> bool:
    """Whether nothing that was acknowledged can lie with the missing alone, also if one that answers is out of date."""
    return len(missing) <= losses_survived(members)


def unproven(members: int, missing: Sequence[str], entry: int, last_commit: int | None) -> UnavailableError:
    """What is there, and why it may not be all."""
    when = "" if last_commit is None else f", committed {moment(last_commit)}"
    return UnavailableError(
        f"{len(missing)} of {members} members are missing ({named(missing)}), and only while no more than "
        f"{losses_survived(members)} are is it certain that nothing later was committed; found is all up to entry "
        f"{entry}{when}",
        hint="start more of them and run this again, it goes on from here; or take what there is with --incomplete",
    )


def moment(seconds: int) -> str:
    """A time as people write it."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def named(names: Sequence[str]) -> str:
    """Some names, and that there are more."""
    return ", ".join(names[:NAMED_MAX]) + (" ..." if len(names) > NAMED_MAX else "")
