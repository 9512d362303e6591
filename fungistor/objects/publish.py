"""Publish paths: from files to sealed stripes on members, one command in the catalog, and an acknowledgement.

Nothing is visible before the command is appended; after it, nothing acknowledged is lost. A crash before it leaves
shards that nobody names and a journal entry that tells which they are.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from fungistor.dag.profiles import PROFILES, Profile
from fungistor.errors import FungiStorError, InvalidError, UnavailableError
from fungistor.limits import INLINE_BYTES_MAX
from fungistor.objects.lease import Lease
from fungistor.objects.patience import Patience
from fungistor.objects.reading import Reading, emit_to
from fungistor.objects.results import Progress, PublishFailure, PublishOptions, PublishOutcome, no_progress
from fungistor.objects.sealer import ChunkReader, Sealer
from fungistor.objects.session import Session
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
            yield Reading(profile, options, group, label, stdin, progress).hash_only()
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
                reading = functools.partial(Reading, profile, options, group, label, self._ports.stdin, progress)
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

    def _publish(self, lease: Lease, read: Callable[[], Reading], *, again: bool, last: bool) -> PublishOutcome:
        """Publish one object; where what it reused was deleted meanwhile, once more from its beginning."""
        try:
            return _Publish(self._ports, lease, read(), last=last).run()
        except CondemnedError:
            if not again:
                raise
        with Lease(self._ports.catalog, self._ports.draw) as fresh:
            return _Publish(self._ports, fresh, read(), last=True).run()


class _Publish:
    """One object on its way to members and catalog."""

    def __init__(self, ports: PublishPorts, lease: Lease, reading: Reading, *, last: bool) -> None:
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
