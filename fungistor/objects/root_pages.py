"""Root pages of many objects in shared stripes: some four hundred small objects cost one stripe, not five copies each.

A stripe is closed early, so that its loss, its check and what is dead in it stay small; at this size it is as wide as a
stripe gets, and a page lies in one shard of it, mostly, which is all that a reader fetches.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from fungistor.coding.manifest import ManifestRoot
from fungistor.coding.pages import SealedPage
from fungistor.limits import KIB
from fungistor.objects.manifest_writer import root_ref
from fungistor.objects.ports import ShardStore
from fungistor.objects.session import Session, WrittenStripe, value_bytes
from fungistor.objects.stripe_writer import StripeWriter

SHARED_STRIPE_BYTES = 256 * KIB


@dataclass(frozen=True, slots=True)
class RootPlace:
    """Where an object's root pages lie: the stripe's number, and offset and length of both together."""

    stripe: int
    offset: int
    bytes: int


class SharedRoots:
    """Packs root pages. Not thread-safe; nothing can be asked of a place before `close`."""

    def __init__(self, store: ShardStore, session: Session) -> None:
        self._session = session
        self._writer = StripeWriter(store, session, itertools.count(), self._written)
        self._filled = 0
        self._stripes: list[tuple[WrittenStripe, int]] = []

    def add(self, list_page: SealedPage, map_page: SealedPage) -> RootPlace:
        """Append both root pages of an object. Raises: UnavailableError: too few members took the stripe before."""
        size = len(list_page.sealed) + len(map_page.sealed)
        if self._filled and self._filled + size > SHARED_STRIPE_BYTES:
            self.close()
        stripe, offset = self._writer.append_sealed(list_page.sealed)
        self._writer.append_sealed(map_page.sealed)
        self._filled += size
        return RootPlace(stripe, offset, size)

    def close(self) -> None:
        """Send the open stripe. Raises: UnavailableError: too few members took it."""
        self._writer.close_stripe()
        self._filled = 0

    def root(self, place: RootPlace, list_page: SealedPage, map_page: SealedPage, salt: bytes) -> ManifestRoot:
        """A manifest's root, as a record has it."""
        stripe, _ = self._stripes[place.stripe]
        list_ref = root_ref(place.offset, list_page)
        return ManifestRoot(stripe.slot, list_ref, root_ref(place.offset + len(list_page.sealed), map_page), salt)

    def number(self, place: RootPlace) -> int:
        """Which of its session's stripes that is."""
        return self._stripes[place.stripe][1]

    def parts(self, place: RootPlace) -> tuple[int, int]:
        """An object's part of the bytes of its stripe's values, and of those stored; all parts come to the whole."""
        stripe, _ = self._stripes[place.stripe]
        filled = sum(stripe.block_lengths)

        def part(whole: int) -> int:
            return whole * (place.offset + place.bytes) // filled - whole * place.offset // filled

        return part(value_bytes(stripe.slot)), part(stripe.stored_bytes)

    def _written(self, _: int, stripe: WrittenStripe) -> None:
        self._stripes.append((stripe, self._session.stripes - 1))
