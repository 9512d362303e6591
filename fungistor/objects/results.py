"""What the use cases take and give back, as values: the keys of `to_json` are the contract of `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from fungistor.errors import FungiStorError

Json = dict[str, object]
EntryType = Literal["file", "directory", "symlink", "block", "missing"]
"""`block`: of a DAG that is no UnixFS. `missing`: not in the partial CAR that was imported."""
MemberState = Literal["up", "slow", "paused", "down"]


class Progress(Protocol):
    """Told how far a long run has come. Called from any thread, often: the callee throttles."""

    def __call__(self, done_bytes: int, total_bytes: int | None, label: str) -> None: ...


def no_progress(done_bytes: int, total_bytes: int | None, label: str) -> None:
    """Ignore how far the run has come."""


class Report(Protocol):
    """A result that has a line of `--json`."""

    def to_json(self) -> Json: ...


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """How `publish` reads paths and what it does with them. `profile` and `policy` are names."""

    profile: str = "unixfs-v1-2025"
    name: str | None = None
    wrap: bool = False
    hidden: bool = False
    only_hash: bool = False
    preserve_mode: bool = False
    preserve_mtime: bool = False
    policy: str = "default"
    expires_s: int | None = None
    private: bool | None = None
    """None: as the object is, and public where there is none yet."""
    wait_s: float = 0.0
    """How long to wait for members and catalog where they cannot be had now, over all paths."""


@dataclass(frozen=True, slots=True)
class PublishOutcome:
    """One object published. All sizes in bytes; `seconds` is wall time from the first read to the acknowledgement.

    `survives` is how many further members may be lost without losing the object, at the acknowledgement. It and
    `revision` are None where nothing was stored (`--only-hash`).
    """

    path: str
    cid: str
    name: str
    profile: str
    size: int
    sealed: int
    stored: int
    new: int
    survives: int | None
    owed: int
    skipped: int
    revision: int | None
    seconds: float
    policy: str | None = None
    survives_zones: int | None = None
    zone_level: str | None = None
    """How many whole zones of that level may be lost beside."""

    @property
    def overhead(self) -> float | None:
        """Stored bytes for each content byte; None for an empty object and where nothing was stored."""
        return round(self.stored / self.size, 4) if self.size and self.revision is not None else None

    def to_json(self) -> Json:
        return {
            "cid": self.cid,
            "name": self.name,
            "path": self.path,
            "profile": self.profile,
            "size": self.size,
            "sealed": self.sealed,
            "stored": self.stored,
            "new": self.new,
            "overhead": self.overhead,
            "survives": self.survives,
            "policy": self.policy,
            "survives_zones": self.survives_zones,
            "zone_level": self.zone_level,
            "owed": self.owed,
            "skipped": self.skipped,
            "revision": self.revision,
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True, slots=True)
class PublishFailure:
    """One PATH of which nothing was committed, and why. The other paths of the run go on."""

    path: str
    error: FungiStorError

    def to_json(self) -> Json:
        return {"path": self.path, "error": error_json(self.error)}


@dataclass(frozen=True, slots=True)
class GetOutcome:
    """What `get` wrote: `out` is the file or folder itself, `size` its content bytes."""

    cid: str
    out: str
    type: EntryType
    size: int
    seconds: float

    def to_json(self) -> Json:
        return {
            "cid": self.cid,
            "out": self.out,
            "type": self.type,
            "size": self.size,
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True, slots=True)
class CarRoot:
    """One root of CAR files, imported. `blocks` and `bytes` count each block of its DAG once, those in CIDs not at all.

    `missing` blocks are linked to and not there; `left_out` blocks of the files are reached from none of their roots.
    """

    cid: str
    blocks: int
    bytes: int
    missing: int
    left_out: int
    name: str
    size: int
    sealed: int
    stored: int
    new: int
    survives: int
    owed: int
    revision: int
    seconds: float

    def to_json(self) -> Json:
        return {
            "cid": self.cid,
            "blocks": self.blocks,
            "bytes": self.bytes,
            "missing": self.missing,
            "left_out": self.left_out,
            "name": self.name,
            "size": self.size,
            "sealed": self.sealed,
            "stored": self.stored,
            "new": self.new,
            "survives": self.survives,
            "owed": self.owed,
            "revision": self.revision,
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True, slots=True)
class CarFile:
    """A CAR file that was written. `bytes` is its length, `blocks` the blocks in it."""

    cid: str
    out: str
    blocks: int
    bytes: int
    seconds: float

    def to_json(self) -> Json:
        return {
            "cid": self.cid,
            "out": self.out,
            "blocks": self.blocks,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True, slots=True)
class EntryLine:
    """One entry of a directory. Bytes of a name that are no UTF-8 are surrogate escapes, as in `os.fsdecode`."""

    name: str
    cid: str
    size: int
    type: EntryType

    def to_json(self) -> Json:
        return {"name": self.name, "cid": self.cid, "size": self.size, "type": self.type}


@dataclass(frozen=True, slots=True)
class StatReport:
    """What is known of a CID without asking every member. What no object holds alone is None."""

    cid: str
    type: EntryType
    size: int
    sealed: int | None
    stored: int | None
    stripes: int | None
    policy: str | None
    survives: int | None
    private: bool | None = None
    survives_zones: int | None = None
    zone_level: str | None = None

    def to_json(self) -> Json:
        return {
            "cid": self.cid,
            "type": self.type,
            "size": self.size,
            "sealed": self.sealed,
            "stored": self.stored,
            "stripes": self.stripes,
            "policy": self.policy,
            "survives": self.survives,
            "private": self.private,
            "survives_zones": self.survives_zones,
            "zone_level": self.zone_level,
        }


@dataclass(frozen=True, slots=True)
class ObjectLine:
    """One object of the catalog. `published` is in Unix seconds."""

    cid: str
    name: str
    size: int
    stored: int
    survives: int | None
    published: int
    private: bool = False

    def to_json(self) -> Json:
        return {
            "cid": self.cid,
            "name": self.name,
            "size": self.size,
            "stored": self.stored,
            "survives": self.survives,
            "published": self.published,
            "private": self.private,
        }


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The count of one object's shards after each was read and checked; good + missing + corrupt = shards."""

    cid: str
    shards: int
    good: int
    missing: int
    corrupt: int
    readable: bool
    survives: int | None = None
    by_member: Mapping[str, str] | None = None
    """What was wrong with which member's shards, for a person."""

    @property
    def exit_code(self) -> int:
        """0 all good, 1 not all good but readable, 3 unreadable now."""
        if not self.readable:
            return 3
        return 0 if self.good == self.shards else 1

    def to_json(self) -> Json:
        return {
            "cid": self.cid,
            "shards": self.shards,
            "good": self.good,
            "missing": self.missing,
            "corrupt": self.corrupt,
            "readable": self.readable,
            "survives": self.survives,
            "by_member": dict(self.by_member or {}),
        }


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a tour of all objects moved. `waiting` shards could not be brought to the members that they wait for;
    `left` says why older layouts had to stay."""

    objects: int
    copied: int
    rebuilt: int
    moved_bytes: int
    waiting: int
    waiting_for: tuple[str, ...]
    unreadable: int
    retired_layouts: int
    left: str
    seconds: float
    damaged: int = 0
    """Shards that were found damaged where they lie, and replaced unless they wait."""
    cleared_layouts: int = 0
    """Retired layouts of which no copies are left."""
    clear_in: int = 0
    """Seconds until copies of the next one may go."""
    freed: int = 0
    """Bytes that members gave back."""
    pending: tuple[str, ...] = ()
    """Members that have old copies to delete still."""
    stuck: tuple[str, ...] = ()
    """Members that cannot compact, as the original 0-db."""

    @property
    def exit_code(self) -> int:
        """0 all is where it should be, 3 something could not be brought there now."""
        return 3 if self.waiting or self.unreadable or self.left else 0

    def to_json(self) -> Json:
        names = {key: list(getattr(self, key)) for key in ("waiting_for", "pending", "stuck")}
        return asdict(self) | names | {"seconds": round(self.seconds, 6)}


@dataclass(frozen=True, slots=True)
class MemberLine:
    """One member as it is believed to be now. `reason` says why it is not up."""

    id: str
    address: str
    zone: str
    state: MemberState
    reason: str = ""

    def to_json(self) -> Json:
        return {
            "id": self.id,
            "address": self.address,
            "zone": self.zone,
            "state": self.state,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The whole network in one value.

    `at_risk` objects can be read but lost margin, `unreadable` ones cannot be read now.
    """

    members: tuple[MemberLine, ...]
    objects: int
    at_risk: int
    unreadable: int
    owed_shards: int
    revision: int
    sync: bool = True
    """False under `up --no-sync`: nothing waits for the disk."""
    stopped: str | None = None
    """Why this node applies no more commands of the catalog, if so: it reads on, and publishes nothing."""
    differing: tuple[str, ...] = ()
    """Nodes whose catalog state is not this node's, though they applied the same."""

    def to_json(self) -> Json:
        return {
            "members": [member.to_json() for member in self.members],
            "objects": self.objects,
            "at_risk": self.at_risk,
            "unreadable": self.unreadable,
            "owed_shards": self.owed_shards,
            "revision": self.revision,
            "sync": self.sync,
            "catalog_stopped": self.stopped,
            "catalog_differs": list(self.differing),
        }


@dataclass(frozen=True, slots=True)
class Unpublished:
    """An object taken back. Blocks that are shredded, blocks that other objects hold, and who has not yet confirmed.

    `until`: Unix seconds until which it can be brought back; nothing is shredded before.
    """

    cid: str
    shredded: int
    still_readable: int
    pending: tuple[str, ...]
    until: int | None
    dry_run: bool = False

    def to_json(self) -> Json:
        return {
            "cid": self.cid,
            "shredded": self.shredded,
            "still_readable": self.still_readable,
            "pending": list(self.pending),
            "until": self.until,
            "dry_run": self.dry_run,
        }


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did. `freed`: bytes that members gave back (`dry_run`: would); then counts of stripes: deleted,
    packed anew, and kept since something uses them.

    `pending`: members that were away, for whom it goes on next time; `stuck`: members that cannot compact. `waiting`:
    dropped manifests whose grace lasts, or of which something is pending.
    """

    freed: int = 0
    deleted: int = 0
    repacked: int = 0
    kept: int = 0
    pending: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    waiting: int = 0
    dry_run: bool = False

    def to_json(self) -> Json:
        return {
            "freed": self.freed,
            "deleted": self.deleted,
            "repacked": self.repacked,
            "kept": self.kept,
            "pending": list(self.pending),
            "stuck": list(self.stuck),
            "waiting": self.waiting,
            "dry_run": self.dry_run,
        }


@dataclass(frozen=True, slots=True)
class KeptLine:
    """An object that is pinned or locked; `locked` in Unix seconds, None where it is not."""

    cid: str
    name: str
    pinned: bool
    locked: int | None

    def to_json(self) -> Json:
        return {"cid": self.cid, "name": self.name, "pinned": self.pinned, "locked": self.locked}


def error_json(error: FungiStorError) -> Json:
    """Give the contract's `{kind, message, hint}` of an error."""
    return {"kind": error.kind, "message": error.message, "hint": error.hint}
