"""Each bug by its name: a function that breaks one promise in the process that calls it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Command, Publish
from fungistor.catalog.outcomes import Outcome
from fungistor.catalog.rules import Verdict
from fungistor.coding.seal import SEAL_TAG_BYTES
from fungistor.coding.shard import SHARD_TAG_BYTES
from fungistor.objects import stripe_reader, verify
from fungistor.objects.session import Session, Settlement
from fungistor.pool import survey
from fungistor.zdb.daemon import barrier
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.segments import Unsynced

Buffer = bytes | bytearray | memoryview


def _plant(where: object, **names: object) -> None:
    """Replace names of a module or class."""
    for name, replacement in names.items():
        setattr(where, name, replacement)


def one_flush_left_out() -> None:
    """A member's barrier flushes its folders, not its data, and says that it did."""
    honest = barrier.sync_round

    def sync_round(work: list[tuple[Namespace, Unsynced]]) -> list[tuple[Namespace, str]]:
        return honest([(namespace, replace(unsynced, files=())) for namespace, unsynced in work])

    _plant(barrier, sync_round=sync_round)


def commit_before_barrier() -> None:
    """A publish commits first and flushes its members afterwards, before it acknowledges."""
    honest_settle, honest_commit = Session.settle, Catalog.commit
    late: list[Callable[[], object]] = []

    def settle(self: Session) -> Settlement:
        receipts, self._receipts = self._receipts, set()
        late.append(lambda: self._store.barrier(receipts))
        return honest_settle(self)

    def commit(self: Catalog, command: Command, *, fence: int | None = None) -> Outcome:
        outcome = honest_commit(self, command, fence=fence)
        while late:
            late.pop()()
        return outcome

    _plant(Session, settle=settle)
    _plant(Catalog, commit=commit)


def one_commit_of_two_lost() -> None:
    """By chance a publish is acknowledged and not appended."""
    honest = Catalog.commit

    def commit(self: Catalog, command: Command, *, fence: int | None = None) -> Outcome:
        if isinstance(command.body, Publish) and os.urandom(1)[0] % 2:
            return Outcome(Verdict.APPLIED, self.revision)
        return honest(self, command, fence=fence)

    _plant(Catalog, commit=commit)


def any_tag_accepted() -> None:
    """`verify` takes a shard for good whatever its tag says."""

    def check(stripe_id: bytes, index: int, value: Buffer, payload_bytes: int | None = None) -> memoryview:
        return memoryview(value)[:-SHARD_TAG_BYTES]

    # A stripe's content root is the tag's other guard.
    _plant(survey, check_shard=check)
    _plant(verify, content_root=_Whatever())


class _Whatever:
    """Equal to everything."""

    def __call__(self, roots: object) -> _Whatever:
        return self

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def no_block_checked() -> None:
    """A reader opens a block whatever its seal says, and does not hash it."""

    def open_anyway(key: bytes, sealed: Buffer, aad: bytes) -> bytes:
        counter = bytes(15) + b"\2"  # of AES-GCM's first block under a nonce of zeros
        decryptor = Cipher(algorithms.AES(key), modes.CTR(counter)).decryptor()
        return decryptor.update(memoryview(sealed)[:-SEAL_TAG_BYTES])

    def take(multihash: object, data: object) -> None:
        """Find nothing wrong."""

    _plant(stripe_reader, open_sealed=open_anyway, verify=take)


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (
        one_flush_left_out,
        commit_before_barrier,
        one_commit_of_two_lost,
        any_tag_accepted,
        no_block_checked,
    )
}
