"""The paths of one object on their way to a DAG: read once, in the order of it, and told of at the end."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import BinaryIO

from fungistor.dag.block import Block
from fungistor.dag.importer import Leaf
from fungistor.dag.profiles import Profile
from fungistor.errors import FungiStorError, InvalidError
from fungistor.ids import TenantNumber
from fungistor.objects.assemble import Assembled, Assembler, LookAhead
from fungistor.objects.results import Progress, PublishOptions, PublishOutcome, no_progress
from fungistor.objects.scan import Attributes, Enter, Event, Leave, ScanRules, scan, shown, total_size
from fungistor.objects.sealer import Batch, ChunkReader, ZeroLeaves, leaves_of
from fungistor.objects.sealing import Keep
from fungistor.objects.spool import Spool
from fungistor.objects.storing import ONE_THREAD_BYTES, Committed, ObjectFacts
from fungistor.objects.upload_journal import source_of

PROFILE_CODES = {name: code for code, name in enumerate(("unixfs-v1-2025", "unixfs-v0-2015", "kubo-cidv1"))}


class Reading:
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
        self.meter: Callable[[int], None] | None = None
        """Told how many bytes were read so far; it may refuse more."""

    def size_ahead(self, *, whole: bool = False) -> int | None:
        """Bytes to read, None for the standard input. Counted whole where asked, or where somebody watches progress."""
        if self._paths == ["-"]:
            return None
        enough = ONE_THREAD_BYTES if self._progress is no_progress and not whole else None
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
            assembled = self.assemble(at_once(reader, nowhere), nowhere)
        return PublishOutcome(
            path=self.label, cid=str(assembled.root), name=self.name(), profile=self.profile.name,
            size=assembled.size, sealed=0, stored=0, new=0, survives=None, owed=0,
            skipped=len(assembled.skipped), revision=None, seconds=time.monotonic() - self.started,
        )  # fmt: skip

    def source(self, tenant: TenantNumber) -> str:
        """What tells these paths from others, for one who publishes them again."""
        return source_of([path if path == "-" else os.path.abspath(path) for path in self._paths], tenant)

    def name(self) -> str:
        """The object's name: the one given, else the path's last part."""
        if self.options.name is not None:
            return self.options.name
        if len(self._paths) != 1 or self._paths == ["-"]:
            return ""
        return os.path.basename(os.path.abspath(self._paths[0])).encode("utf-8", "replace").decode()

    def into(self, spool: Spool, reader: ChunkReader) -> Assembled:
        """Read all of it into a spool, in the caller's thread: for contents so small that they lie in the manifest."""
        return self.assemble(
            at_once(reader, lambda multihash, data: spool.add_small(multihash, bytes(data))), emit_to(spool)
        )

    def facts(self, assembled: Assembled) -> ObjectFacts:
        """What the catalog is to know of it."""
        lasts_s = self.options.expires_s
        expires = None if lasts_s is None else int(time.time()) + lasts_s
        code = PROFILE_CODES[self.profile.name]
        return ObjectFacts(
            assembled.root,
            assembled.size,
            self.name(),
            self.options.policy,
            code,
            expires=expires,
            private=self.options.private,
        )

    def outcome(self, assembled: Assembled, committed: Committed) -> PublishOutcome:
        """What is told of it."""
        sizes = committed.record.sizes
        return PublishOutcome(
            path=self.label,
            cid=str(assembled.root),
            name=committed.name,
            profile=self.profile.name,
            size=sizes.size,
            sealed=sizes.sealed,
            stored=sizes.stored,
            new=committed.new_bytes,
            survives=committed.settlement.survives,
            policy=committed.record.policy,
            survives_zones=committed.settlement.survives_zones,
            zone_level=committed.settlement.zone_level,
            owed=committed.settlement.owed_shards,
            skipped=len(assembled.skipped),
            revision=committed.revision,
            seconds=time.monotonic() - self.started,
        )

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
        if self.meter is not None:
            self.meter(self._done_bytes)
        self._progress(self._done_bytes, self._total, self.label)


def emit_to(spool: Spool) -> Callable[[Block], None]:
    """Keep blocks that are no leaves."""

    def emit(block: Block) -> None:
        # A dag-pb block writes its links before anything else, so its first byte tells whether it has any.
        if block.data[:1] == b"\x12":
            spool.add_node(block.cid.multihash, block.cid.codec, block.data)
        else:
            spool.add_small(block.cid.multihash, block.data)

    return emit


def at_once(reader: ChunkReader, keep: Keep) -> Callable[[Batch], Future[list[Leaf]]]:
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
