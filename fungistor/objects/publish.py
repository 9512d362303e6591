"""Publish paths: from files to sealed stripes on members, one command in the catalog, and an acknowledgement.

Nothing is visible before the command is appended; after it, nothing acknowledged is lost. A crash before it leaves
shards that nobody names and a journal entry that tells which they are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import BinaryIO

from fungistor.dag.block import Block
from fungistor.dag.importer import Leaf
from fungistor.dag.profiles import PROFILES, Profile
from fungistor.errors import FungiStorError, InvalidError, UnavailableError
from fungistor.limits import INLINE_BYTES_MAX
from fungistor.objects.assemble import Assembled, Assembler, LookAhead
from fungistor.objects.lease import Lease
from fungistor.objects.patience import Patience
from fungistor.objects.results import Progress, PublishFailure, PublishOptions, PublishOutcome, no_progress
from fungistor.objects.scan import (
    Attributes,
    Enter,
    Event,
    Leave,
    ScanRules,
    scan,
    shown,
    total_size,
)
from fungistor.objects.sealer import Batch, ChunkReader, Sealer, ZeroLeaves, leaves_of
from fungistor.objects.sealing import Keep
from fungistor.objects.session import Session
from fungistor.objects.spool import Spool
from fungistor.objects.storing import (
    NAME_BYTES_MAX,
    ONE_THREAD_BYTES,
    CondemnedError,
    ObjectFacts,
    PublishPorts,
    Storing,
    sealing_threads,
)
from fungistor.objects.upload_journal import source_of

PROFILE_CODES = {name: code for code, name in enumerate(("unixfs-v1-2025", "unixfs-v0-2015", "kubo-cidv1"))}


def check_options(options: PublishOptions, paths: Sequence[str]) -> Profile:
    """Return the profile named.

    Raises:
        InvalidError: the options do not fit together or name what is not there.
    """
    profile = PROFILES.get(options.profile)
    if profile is None:
        raise InvalidError(f"no profile named {options.profile}", hint=f"choose one of {', '.join(PROFILES)}")
    if options.policy != "default":
        raise InvalidError(f"no policy named {options.policy}", hint="the only policy so far is `default`")
    if options.name is not None:
        if len(paths) > 1 and not options.wrap:
            raise InvalidError("--name with several paths", hint="add --wrap to make one object of them")
        if len(options.name.encode()) > NAME_BYTES_MAX:
            raise InvalidError(f"a name has at most {NAME_BYTES_MAX} bytes")
    if list(paths).count("-") > 1 or ("-" in paths and options.wrap):
        raise InvalidError("`-` is the standard input: it can be published once and not with --wrap")
    return profile


def hash_only(
    paths: Sequence[str], options: PublishOptions, stdin: BinaryIO, progress: Progress = no_progress
) -> Iterator[PublishOutcome | PublishFailure]:
    """Give the CIDs that `publish` would give, and store nothing."""
    profile = check_options(options, paths)
    for group, label in _objects(paths, options):
        try:
            yield _Reading(profile, options, group, label, stdin, progress).hash_only()
        except FungiStorError as error:
            yield PublishFailure(label, error)


def _objects(paths: Sequence[str], options: PublishOptions) -> Iterator[tuple[list[str], str]]:
    for group in [list(paths)] if options.wrap else [[path] for path in paths]:
        yield group, group[0] if len(group) == 1 else f"{len(group)} paths"


class Publisher:
    """Publishes for the network's own tenant."""

    def __init__(self, ports: PublishPorts) -> None:
        self._ports = ports

    def publish(
        self, paths: Sequence[str], options: PublishOptions, progress: Progress = no_progress
    ) -> Iterator[PublishOutcome | PublishFailure]:
        """Publish each path as an object, or all as one with `wrap`; yield one result each, as it is acknowledged."""
        profile = check_options(options, paths)
        unavailable: UnavailableError | None = None
        patience = Patience(options.wait_s)
        groups = list(_objects(paths, options))
        with Lease(self._ports.catalog, self._ports.draw) as lease:
            for number, (group, label) in enumerate(groups, 1):
                reading = functools.partial(_Reading, profile, options, group, label, self._ports.stdin, progress)
                try:
                    # What is missing for one path is missing for the next: nobody should wait for each.
                    if unavailable is not None:
                        raise unavailable
                    again, last = group != ["-"], number == len(groups)
                    attempt = functools.partial(self._publish, lease, reading, again=again, last=last)
                    # What was stored by one try is taken up by the next; the standard input cannot be read twice.
                    yield patience.until_available(attempt) if again else attempt()
                except FungiStorError as error:
                    yield PublishFailure(label, error)
                    if isinstance(error, UnavailableError):
                        unavailable = error

    def _publish(self, lease: Lease, read: Callable[[], _Reading], *, again: bool, last: bool) -> PublishOutcome:
        """Publish one object; where what it reused was deleted meanwhile, once more from its beginning."""
        try:
            return _Publish(self._ports, lease, read(), last=last).run()
        except CondemnedError:
            if not again:
                raise
        with Lease(self._ports.catalog, self._ports.draw) as fresh:
            return _Publish(self._ports, fresh, read(), last=True).run()


class _Reading:
    """The paths of one object, read in the order of its DAG."""

    def __init__(
        self,
        profile: Profile,
        options: PublishOptions,
        paths: Sequence[str],
        label: str,
        stdin: BinaryIO,
        progress: Progress,
    ) -> None:
        self.profile = profile
        self.options = options
        self.label = label
        self.started = time.monotonic()
        self._paths = paths
        self._stdin = stdin
        self._progress = progress
        self._rules = ScanRules(options.hidden, options.preserve_mode, options.preserve_mtime)
        self._done_bytes = 0
        self._total: int | None = None

    def size_ahead(self) -> int | None:
        """Bytes to read, None for the standard input. Counted whole only where somebody watches the progress."""
        if self._paths == ["-"]:
            return None
        enough = ONE_THREAD_BYTES if self._progress is no_progress else None
        total = sum(total_size(os.fsencode(path), self._rules, enough) for path in self._paths)
        self._total = total if enough is None else None
        return total

    def assemble(self, submit: Callable[[Batch], Future[list[Leaf]]], emit: Callable[[Block], None]) -> Assembled:
        """Read it all; leaves go through `submit`, all other blocks to `emit`."""
        assembler = Assembler(self.profile, emit, self._count)
        if self._paths == ["-"]:
            return assembler.run_stream(self._stdin, submit)
        return assembler.run(LookAhead(self._events(), self.profile, submit))

    def hash_only(self) -> PublishOutcome:
        """Read and hash, and keep nothing."""

        def nowhere(*_: object) -> None:
            """Keep nothing."""

        with contextlib.closing(ChunkReader()) as reader:
            assembled = self.assemble(_at_once(reader, nowhere), nowhere)
        return PublishOutcome(
            path=self.label, cid=str(assembled.root), name=self.name(), profile=self.profile.name,
            size=assembled.size, sealed=0, stored=0, new=0, survives=None, owed=0,
            skipped=len(assembled.skipped), revision=None, seconds=time.monotonic() - self.started,
        )  # fmt: skip

    def source(self) -> str:
        """What tells these paths from others, for one who publishes them again."""
        return source_of([path if path == "-" else os.path.abspath(path) for path in self._paths])

    def name(self) -> str:
        """The object's name: the one given, else the path's last part."""
        if self.options.name is not None:
            return self.options.name
        if len(self._paths) != 1 or self._paths == ["-"]:
            return ""
        return os.path.basename(os.path.abspath(self._paths[0])).encode("utf-8", "replace").decode()

    def _events(self) -> Iterator[Event]:
        if not self.options.wrap:
            yield from scan(os.fsencode(self._paths[0]), self._rules)
            return
        names: dict[bytes, bytes] = {}
        for path in map(os.fsencode, self._paths):
            name = os.path.basename(os.path.abspath(path))
            if names.setdefault(name, path) != path:
                raise InvalidError(f"two paths are named {shown(name)}", hint="--wrap puts them in one folder")
        yield Enter(b"", Attributes())
        for _, path in sorted(names.items()):
            yield from scan(path, self._rules)
        yield Leave()

    def _count(self, read: int) -> None:
        self._done_bytes += read
        self._progress(self._done_bytes, self._total, self.label)


class _Publish:
    """One object on its way to members and catalog."""

    def __init__(self, ports: PublishPorts, lease: Lease, reading: _Reading, *, last: bool) -> None:
        self._ports = ports
        self._lease = lease
        self._reading = reading
        self._last = last

    def run(self) -> PublishOutcome:
        size = self._reading.size_ahead()
        ports = self._ports
        with (
            Session(
                ports.journal, ports.store, ports.draw, ids=self._lease, sync=ports.sync, source=self._reading.source()
            ) as session,
            contextlib.closing(Spool(os.path.join(session.folder, "spool.db"))) as spool,
            self._lease.counting(session),
        ):
            return self._store(session, spool, size)

    def _store(self, session: Session, spool: Spool, size: int | None) -> PublishOutcome:
        storing = Storing(self._ports, self._lease, session, spool)

        def emit(block: Block) -> None:
            # A dag-pb block writes its links before anything else, so its first byte tells whether it has any.
            if block.data[:1] == b"\x12":
                spool.add_node(block.cid.multihash, block.cid.codec, block.data)
            else:
                spool.add_small(block.cid.multihash, block.data)

        if size is not None and size <= INLINE_BYTES_MAX:
            with contextlib.closing(ChunkReader()) as reader:
                assembled = self._reading.assemble(
                    _at_once(reader, lambda mh, data: spool.add_small(mh, bytes(data))), emit
                )
        else:
            sealer = Sealer(spool, storing.look_up, storing.new_writer, sealing_threads(size))
            try:
                assembled = self._reading.assemble(sealer.submit, emit)
            except BaseException:
                sealer.cancel()
                raise
            sealer.close()
        return self._commit(storing, assembled)

    def _commit(self, storing: Storing, assembled: Assembled) -> PublishOutcome:
        reading = self._reading
        code = PROFILE_CODES[reading.profile.name]
        lasts_s = reading.options.expires_s
        expires = None if lasts_s is None else int(time.time()) + lasts_s
        facts = ObjectFacts(
            assembled.root, assembled.size, reading.name(), reading.options.policy, code, expires=expires
        )
        committed = storing.commit(facts, last=self._last)
        sizes = committed.record.sizes
        return PublishOutcome(
            path=reading.label,
            cid=str(assembled.root),
            name=committed.name,
            profile=reading.profile.name,
            size=sizes.size,
            sealed=sizes.sealed,
            stored=sizes.stored,
            new=committed.new_bytes,
            survives=committed.settlement.survives,
            owed=committed.settlement.owed_shards,
            skipped=len(assembled.skipped),
            revision=committed.revision,
            seconds=time.monotonic() - reading.started,
        )


def _at_once(reader: ChunkReader, keep: Keep) -> Callable[[Batch], Future[list[Leaf]]]:
    """Do a batch in the caller's thread: for contents so small that a thread costs more than it saves."""

    zeros = ZeroLeaves()

    def submit(batch: Batch) -> Future[list[Leaf]]:
        future: Future[list[Leaf]] = Future()
        try:
            future.set_result(leaves_of(batch, reader, keep, zeros))
        except FungiStorError as error:
            future.set_exception(error)
        return future

    return submit
