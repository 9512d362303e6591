"""Import CAR files: their DAGs become objects, one for each root, under the CIDs that they have.

First everything is read and checked, and each root walked; only when nothing is left to refuse is anything stored.
So a hostile file costs members nothing, and blocks that no root reaches are never sent to them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import BinaryIO

from fungistor.dag.car import CarDecoder, Section
from fungistor.dag.cid import CID, verify
from fungistor.errors import BlockMismatchError, FailedError, InvalidError
from fungistor.keys.ring import object_id
from fungistor.limits import BLOCK_BYTES_MAX, INLINE_BYTES_MAX, MIB
from fungistor.objects.assemble import BATCHES_AHEAD
from fungistor.objects.car_index import CarIndex, Place
from fungistor.objects.car_walk import (
    LINKING,
    MISSING_NAMED_MAX,
    Held,
    Leaf,
    Node,
    Survey,
    Walker,
    links_of,
    no_held,
    survey,
)
from fungistor.objects.lease import Lease
from fungistor.objects.placed_policy import placed_policy
from fungistor.objects.quota import Quota
from fungistor.objects.results import CarRoot, Progress, no_progress
from fungistor.objects.scan import shown
from fungistor.objects.sealer import BATCH_BYTES, BATCH_CHUNKS_MAX
from fungistor.objects.sealing import Keep, SealingThreads
from fungistor.objects.session import Session
from fungistor.objects.spool import Spool
from fungistor.objects.storing import (
    NAME_BYTES_MAX,
    Committed,
    ObjectFacts,
    PublishPorts,
    Storing,
    sealing_threads,
)
from fungistor.objects.upload_journal import source_of
from fungistor.placement import DEFAULT_POLICY

READ_BYTES = MIB

INLINE_LEAF_BYTES_MAX = 40
"""A leaf up to here takes no more room in the block map than an entry that says where it is stored."""

IMPORTED = 255
"""The profile code of what was imported: nobody knows how its DAG was made."""


class CarImporter:
    """Imports for one tenant. `held` finds blocks that it has already."""

    def __init__(self, ports: PublishPorts, held: Held) -> None:
        self._ports = ports
        self._quota = Quota(ports.catalog, ports.keys.network_key, ports.tenant)
        self._held = held

    def run(
        self,
        paths: Sequence[str],
        *,
        partial: bool,
        private: bool | None = None,
        progress: Progress = no_progress,
    ) -> Iterator[CarRoot]:
        """Import files together: a DAG may be spread over them. One result a root, as it is acknowledged.

        With `partial` a root may lack blocks that neither the files nor the network have.

        Raises:
            InvalidError: a file is no CARv1, holds blocks that are not what they should be, or lacks some.
            FailedError: a file cannot be read.
            UnavailableError: members cannot be had now.
        """
        try:
            yield from self._run(paths, partial, private, progress)
        except sqlite3.OperationalError as error:
            raise FailedError(
                f"scratch files of the import cannot be written: {error}", hint="make room where the home's journal is"
            ) from error

    def _run(self, paths: Sequence[str], partial: bool, private: bool | None, progress: Progress) -> Iterator[CarRoot]:
        if list(paths).count("-") > 1:
            raise InvalidError("`-` is the standard input: it can be imported once")
        # A session of its own for the scratch files: it never writes a stripe.
        with (
            Session(self._ports.journal, self._ports.store, self._ports.draw, sync=self._ports.sync) as session,
            contextlib.closing(CarIndex(session.folder)) as index,
        ):
            roots: dict[CID, str] = {}
            for number, path in enumerate(paths):
                scanned = _Scan(index, session.folder, self._ports.stdin, progress)
                for root in scanned.read(path, os.path.join(session.folder, f"input-{number}")):
                    roots.setdefault(root, _name_of(path))
            walker = Walker(index, session.folder, self._held if partial else no_held)
            surveys = [survey(index, walker, root) for root in roots]
            _check(index, surveys, partial=partial)
            left_out = index.unmarked()
            with Lease(self._ports.catalog, self._ports.draw) as lease:
                for found in surveys:
                    name = roots[found.root] if len(roots) == 1 else ""
                    work = _Import(index, walker, found, name, left_out, progress, private)
                    yield self._store(lease, work, last=found is surveys[-1])

    def _store(self, lease: Lease, work: _Import, *, last: bool) -> CarRoot:
        started = time.monotonic()
        ports, found = self._ports, work.found
        if self._quota.is_bounded:
            self._quota.check(found.size, lambda: found.root)
        before = ports.current(object_id(ports.keys.network_key, ports.tenant, found.root.codec, found.root.multihash))
        policy = placed_policy(ports.catalog, DEFAULT_POLICY.name if before is None else before.policy)
        with (
            Session(
                ports.journal,
                ports.store,
                ports.draw,
                ids=lease,
                sync=ports.sync,
                source=source_of(["car", str(found.root)], ports.tenant),
                policy=policy,
            ) as session,
            contextlib.closing(Spool(os.path.join(session.folder, "spool.db"))) as spool,
            lease.counting(session),
        ):
            storing = Storing(ports, lease, session, spool)
            if found.spread_bytes <= INLINE_BYTES_MAX:
                work.keep_inline(spool)
            else:
                work.seal(spool, storing)
            committed = storing.commit(
                ObjectFacts(
                    found.root,
                    found.size,
                    work.name,
                    policy.policy.name,
                    IMPORTED,
                    keep_name=True,
                    partial=found.missing > 0,
                    private=work.private,
                ),
                last=last,
            )
        return _result(work, committed, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class _Import:
    """One root to store."""

    index: CarIndex
    walker: Walker
    found: Survey
    name: str
    left_out: int
    progress: Progress
    private: bool | None

    def keep_inline(self, spool: Spool) -> None:
        """Put all of a small DAG into its block map."""
        for leaf in self._leaves(spool):
            spool.add_small(leaf.multihash, self.index.read(leaf))

    def seal(self, spool: Spool, storing: Storing) -> None:
        """Send the leaves to members in the order in which they are read."""
        threads = SealingThreads[list[Place], int](
            spool,
            storing.look_up,
            storing.new_writer,
            lambda: _BlockWorker(self.index),
            sealing_threads(self.found.bytes),
        )
        try:
            self._feed(spool, threads)
        except BaseException:
            threads.cancel()
            raise
        threads.close()

    def _feed(self, spool: Spool, threads: SealingThreads[list[Place], int]) -> None:
        futures: deque[Future[int]] = deque()
        batch: list[Place] = []
        batch_bytes = done = 0

        def collect(ahead: int) -> None:
            nonlocal done
            while len(futures) > ahead:
                done += futures.popleft().result()
                self.progress(done, self.found.bytes, "storing")

        for leaf in self._leaves(spool):
            if leaf.length <= INLINE_LEAF_BYTES_MAX:
                spool.add_small(leaf.multihash, self.index.read(leaf))
                continue
            batch.append(leaf)
            batch_bytes += leaf.length
            if batch_bytes >= BATCH_BYTES or len(batch) >= BATCH_CHUNKS_MAX:
                futures.append(threads.submit(batch))
                batch, batch_bytes = [], 0
                collect(BATCHES_AHEAD)
        if batch:
            futures.append(threads.submit(batch))
        collect(0)

    def _leaves(self, spool: Spool) -> Iterator[Place]:
        """The leaves; inner nodes go to the spool on the way."""
        for met in self.walker.walk(self.found.root):
            if isinstance(met, Node):
                spool.add_node(met.cid.multihash, met.cid.codec, met.data)
            elif isinstance(met, Leaf) and not met.again:
                yield met.place


class _BlockWorker:
    """Reads blocks out of the files into one reused buffer."""

    def __init__(self, index: CarIndex) -> None:
        self._index = index
        self._buffer = bytearray(BLOCK_BYTES_MAX)

    def work(self, batch: list[Place], keep: Keep) -> int:
        """Keep every block; return their bytes."""
        for place in batch:
            view = memoryview(self._buffer)[: place.length]
            self._index.read_into(place, view)
            keep(place.multihash, view)
        return sum(place.length for place in batch)

    def close(self) -> None:
        """The files are the index's."""


class _Scan:
    """Reads a file once, from its beginning to its end, and checks every block in it."""

    def __init__(self, index: CarIndex, folder: str, stdin: BinaryIO, progress: Progress) -> None:
        self._index = index
        self._folder = folder
        self._stdin = stdin
        self._progress = progress

    def read(self, path: str, aside: str) -> tuple[CID, ...]:
        """Add a file's blocks to the index; return its roots. What cannot be read twice is copied to `aside`."""
        label = "the standard input" if path == "-" else shown(os.fsencode(path))
        fd = self._open(path, label, aside)
        number = self._index.add_file(fd, label)
        total = os.fstat(fd).st_size
        decoder = CarDecoder()
        done = 0
        try:
            while data := os.pread(fd, READ_BYTES, done):
                done += len(data)
                self._index.add([_checked(section, number) for section in decoder.feed(data) if _counts(section)])
                self._progress(done, total, f"checking {label}")
            decoder.finish()
        except InvalidError as error:
            raise InvalidError(f"{label}: {error.message}", hint=error.hint) from None
        except OSError as error:
            raise _unreadable(label, error) from error
        assert decoder.roots is not None
        return decoder.roots

    def _open(self, path: str, label: str, aside: str) -> int:
        try:
            if path == "-":
                return _copied(self._stdin, aside)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(label, error) from error
        kind = os.fstat(fd).st_mode
        if stat.S_ISREG(kind):
            return fd
        if stat.S_ISDIR(kind):
            os.close(fd)
            raise InvalidError(f"{label}: is a folder, not a CAR file", hint="`fungistor publish` takes folders")
        with os.fdopen(fd, "rb") as file:
            return _copied(file, aside)


def _copied(stream: BinaryIO, aside: str) -> int:
    fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            shutil.copyfileobj(stream, file, READ_BYTES)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _unreadable(label: str, error: OSError) -> FailedError:
    return FailedError(
        f"{label}: cannot be read: {error.strerror or error}", hint="name a file that this user can read"
    )


def _counts(section: Section) -> bool:
    """Whether a block is one that anybody stores. One that stands in its CID is not; it must be right all the same."""
    cid = section.cid
    try:
        verify(cid, section.data)
    except BlockMismatchError:
        raise InvalidError(
            f"block {cid} at byte {section.offset} does not match its hash",
            hint="the file is damaged or forged: nothing of it was imported",
        ) from None
    except InvalidError as error:
        raise InvalidError(f"block {cid} at byte {section.offset} cannot be checked: {error}") from None
    return not cid.is_identity


def _checked(section: Section, file: int) -> tuple[Place, int]:
    cid = section.cid
    linkless = cid.codec if cid.codec in LINKING and not links_of(cid, section.data) else 0
    return Place(cid.multihash, file, section.offset, len(section.data)), linkless


def _check(index: CarIndex, surveys: Sequence[Survey], *, partial: bool) -> None:
    """Refuse what lacks blocks, unless it may; a root must always be there.

    Raises:
        InvalidError: names the blocks.
    """
    for found in surveys:
        if found.root_missing:
            raise InvalidError(f"the root {found.root} is not among the blocks", hint="export the DAG with its root")
    missing = index.absent()
    if not missing or partial:
        return
    named = list(dict.fromkeys(str(cid) for found in surveys for cid in found.missing_named))[:MISSING_NAMED_MAX]
    more = f" and {missing - len(named)} more" if missing > len(named) else ""
    raise InvalidError(
        f"{missing} {'block is' if missing == 1 else 'blocks are'} linked to and missing: {', '.join(named)}{more}",
        hint="export the whole DAG, or import what there is with --partial",
    )


def _name_of(path: str) -> str:
    name = os.path.basename(path).encode("utf-8", "replace").removesuffix(b".car")
    return "" if path == "-" else name[:NAME_BYTES_MAX].decode("utf-8", "ignore")


def _result(work: _Import, committed: Committed, seconds: float) -> CarRoot:
    sizes = committed.record.sizes
    return CarRoot(
        cid=str(work.found.root),
        blocks=work.found.blocks,
        bytes=work.found.bytes,
        missing=work.found.missing,
        left_out=work.left_out,
        name=committed.name,
        size=sizes.size,
        sealed=sizes.sealed,
        stored=sizes.stored,
        new=committed.new_bytes,
        survives=committed.settlement.survives,
        owed=committed.settlement.owed_shards,
        revision=committed.revision,
        seconds=seconds,
    )
