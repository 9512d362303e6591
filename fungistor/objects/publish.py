"""Publish paths: from files to sealed stripes on members, one command in the catalog, and an acknowledgement.

Nothing is visible before the command is appended; after it, nothing acknowledged is lost. A crash before it leaves
shards that nobody names and a journal entry that tells which they are.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from fungistor.dag.cid import CID
from fungistor.dag.profiles import PROFILES, Profile
from fungistor.errors import FungiStorError, InvalidError, UnavailableError
from fungistor.limits import INLINE_BYTES_MAX
from fungistor.objects.lease import Lease
from fungistor.objects.patience import Patience
from fungistor.objects.placed_policy import PlacedPolicy, placed_policy
from fungistor.objects.quota import Quota
from fungistor.objects.reading import Reading, emit_to
from fungistor.objects.results import Progress, PublishFailure, PublishOptions, PublishOutcome, no_progress
from fungistor.objects.sealer import ChunkReader, Sealer
from fungistor.objects.session import Session
from fungistor.objects.small_batch import SmallBatch
from fungistor.objects.spool import Spool
from fungistor.objects.storing import (
    NAME_BYTES_MAX,
    CondemnedError,
    PublishPorts,
    Storing,
    sealing_threads,
)


def check_options(options: PublishOptions, paths: Sequence[str]) -> Profile:
    """Return the profile named.

    Raises:
        InvalidError: the options do not fit together or name what is not there.
    """
    profile = PROFILES.get(options.profile)
    if profile is None:
        raise InvalidError(f"no profile named {options.profile}", hint=f"choose one of {', '.join(PROFILES)}")
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
            yield Reading(profile, options, group, label, stdin, progress).hash_only()
        except FungiStorError as error:
            yield PublishFailure(label, error)


def _objects(paths: Sequence[str], options: PublishOptions) -> Iterator[tuple[list[str], str]]:
    for group in [list(paths)] if options.wrap else [[path] for path in paths]:
        yield group, group[0] if len(group) == 1 else f"{len(group)} paths"


class Publisher:
    """Publishes for one tenant."""

    def __init__(self, ports: PublishPorts) -> None:
        self.ports = ports
        self.quota = Quota(ports.catalog, ports.keys.network_key, ports.tenant)

    def publish(
        self, paths: Sequence[str], options: PublishOptions, progress: Progress = no_progress
    ) -> Iterator[PublishOutcome | PublishFailure]:
        """Publish each path as an object, or all as one with `wrap`; yield one result each, as it is acknowledged."""
        profile = check_options(options, paths)
        policy = placed_policy(self.ports.catalog, options.policy)
        reads = [
            _Read(
                label,
                group != ["-"],
                functools.partial(Reading, profile, options, group, label, self.ports.stdin, progress),
            )
            for group, label in _objects(paths, options)
        ]
        with Lease(self.ports.catalog, self.ports.draw) as lease:
            yield from _Run(self, lease, policy, Patience(options.wait_s), reads).results()

    def publish_one(
        self, lease: Lease, policy: PlacedPolicy, read: Callable[[], Reading], *, again: bool, last: bool
    ) -> PublishOutcome:
        """Publish one object; where what it reused was deleted meanwhile, once more from its beginning."""
        reading = read()
        if self.quota.is_bounded:
            self._check_room(reading, read)
        try:
            return _Publish(self.ports, lease, policy, reading, last=last).run()
        except CondemnedError:
            if not again:
                raise
        with Lease(self.ports.catalog, self.ports.draw) as fresh:
            return _Publish(self.ports, fresh, policy, read(), last=True).run()

    def _check_room(self, reading: Reading, read: Callable[[], Reading]) -> None:
        size = reading.size_ahead(whole=True)
        if size is None:
            reading.meter = self.quota.meter()
        else:
            self.quota.check(size, lambda: CID.parse(read().hash_only().cid))


@dataclass(frozen=True, slots=True)
class _Read:
    """An object's paths, and how to read them; `again`: more than once."""

    label: str
    again: bool
    reading: Callable[[], Reading]


class _Run:
    """All objects of a run, in their order: small ones in batches, each other one by itself."""

    def __init__(
        self, publisher: Publisher, lease: Lease, policy: PlacedPolicy, patience: Patience, reads: Sequence[_Read]
    ) -> None:
        self._publisher = publisher
        self._lease = lease
        self._policy = policy
        self._patience = patience
        self._reads = reads
        self._unavailable: UnavailableError | None = None

    def results(self) -> Iterator[PublishOutcome | PublishFailure]:
        """One result each, as it is acknowledged."""
        ahead = 0
        # Each object of a bounded tenant is looked at before anything of it is stored.
        at_once = not self._publisher.quota.is_bounded
        while ahead < len(self._reads):
            if at_once and len(self._reads) - ahead > 1 and self._unavailable is None:
                done = 0
                for result in self._together(ahead):
                    done += 1
                    yield result
                ahead += done
                if done:
                    continue
            yield self._alone(self._reads[ahead], last=ahead + 1 == len(self._reads))
            ahead += 1

    def _together(self, first: int) -> Iterator[PublishOutcome | PublishFailure]:
        """Publish small objects from here on, up to one that is not, or as many as are committed at once."""
        taken: list[tuple[_Read, FungiStorError | None]] = []
        committed: list[PublishOutcome | FungiStorError | None] = []
        try:
            with SmallBatch(self._publisher.ports, self._lease, self._policy) as batch:
                for read in self._reads[first:]:
                    error: FungiStorError | None = None
                    try:
                        if not read.again or not batch.add(read.reading()):
                            break
                    except UnavailableError:
                        raise
                    except FungiStorError as found:
                        error = found
                    taken.append((read, error))
                    if batch.is_full:
                        break
                if any(error is None for _, error in taken):
                    committed = batch.commit(last=first + len(taken) == len(self._reads))
        except FungiStorError as met:
            if isinstance(met, UnavailableError) and not self._patience.is_left:
                self._unavailable = met
            committed = [None] * len(taken)
        outcomes = iter(committed)
        for read, own in taken:
            outcome = own or next(outcomes)
            if outcome is None:
                yield self._alone(read, last=False)
            else:
                yield PublishFailure(read.label, outcome) if isinstance(outcome, FungiStorError) else outcome

    def _alone(self, read: _Read, *, last: bool) -> PublishOutcome | PublishFailure:
        try:
            # What is missing for one path is missing for the next: nobody should wait for each.
            if self._unavailable is not None:
                raise self._unavailable
            attempt = functools.partial(
                self._publisher.publish_one, self._lease, self._policy, read.reading, again=read.again, last=last
            )
            # What was stored by one try is taken up by the next; the standard input cannot be read twice.
            return self._patience.until_available(attempt) if read.again else attempt()
        except FungiStorError as error:
            if isinstance(error, UnavailableError):
                self._unavailable = error
            return PublishFailure(read.label, error)


class _Publish:
    """One object on its way to members and catalog."""

    def __init__(
        self, ports: PublishPorts, lease: Lease, policy: PlacedPolicy, reading: Reading, *, last: bool
    ) -> None:
        self._ports = ports
        self._lease = lease
        self._policy = policy
        self._reading = reading
        self._last = last

    def run(self) -> PublishOutcome:
        size = self._reading.size_ahead()
        ports = self._ports
        with (
            Session(
                ports.journal,
                ports.store,
                ports.draw,
                ids=self._lease,
                sync=ports.sync,
                source=self._reading.source(ports.tenant),
                policy=self._policy,
            ) as session,
            contextlib.closing(Spool(os.path.join(session.folder, "spool.db"))) as spool,
            self._lease.counting(session),
        ):
            return self._store(session, spool, size)

    def _store(self, session: Session, spool: Spool, size: int | None) -> PublishOutcome:
        storing = Storing(self._ports, self._lease, session, spool)

        if size is not None and size <= INLINE_BYTES_MAX:
            with contextlib.closing(ChunkReader()) as reader:
                assembled = self._reading.into(spool, reader)
        else:
            sealer = Sealer(spool, storing.look_up, storing.new_writer, sealing_threads(size))
            try:
                assembled = self._reading.assemble(sealer.submit, emit_to(spool))
            except BaseException:
                sealer.cancel()
                raise
            sealer.close()
        committed = storing.commit(self._reading.facts(assembled), last=self._last)
        return self._reading.outcome(assembled, committed)
