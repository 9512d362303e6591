"""Pay what members owe: find the shards that are not where they should be, rebuild them, and say so in the catalog."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Command, Payment, PayOwed
from fungistor.catalog.record import Record
from fungistor.errors import ConflictError, FungiStorError, UnavailableError
from fungistor.ids import MemberNumber, SessionId
from fungistor.objects.manifest_reader import StripeListReader
from fungistor.objects.mend import Mended, Mender
from fungistor.objects.placed_policy import placed_policy
from fungistor.objects.ports import ShardStore

OpenList = Callable[[Record], StripeListReader]


class Payer:
    """Pays debts to members that answer. Several nodes may pay at once: a shard put twice is the same shard."""

    def __init__(self, catalog: Catalog, store: ShardStore, open_list: OpenList, mender: Callable[[], Mender]) -> None:
        self._catalog = catalog
        self._store = store
        self._open_list = open_list
        self._mender = mender

    def pay(self, objects_max: int) -> int:
        """Pay for some objects; return how many shards were paid."""
        self._catalog.catch_up()
        up = set(self._store.up_members())
        debts = [debt for debt in self._catalog.owed() if debt.member in up]
        paid = 0
        for object_id, group in itertools.islice(itertools.groupby(debts, key=lambda d: d.object_id), objects_max):
            record = self._catalog.record(object_id)
            if record is None:
                continue
            try:
                paid += self._pay_object(record, {debt.member for debt in group})
            except UnavailableError:
                # Its stripes cannot be read now; the others may be.
                continue
        return paid

    def mend_whole(self, record: Record) -> Mended | None:
        """Bring back all that is missing of an object, debts or not; None where some stripe cannot be rebuilt."""
        try:
            policy = placed_policy(self._catalog, record.policy)
            mended = self._mender().mend(self._open_list(record).all_slots(), policy=policy)
        except FungiStorError:
            return None
        if mended.unreadable:
            return None
        self._tell(record, mended, {member for member, _ in record.owed})
        return mended

    def _pay_object(self, record: Record, members: Collection[MemberNumber]) -> int:
        mended = self._mender().mend(self._open_list(record).all_slots(), members)
        if mended.unreadable:
            return 0
        return self._tell(record, mended, members)

    def _tell(self, record: Record, mended: Mended, members: Collection[MemberNumber]) -> int:
        payments = [
            Payment(member, before, after)
            for member, before in record.owed
            if member in members and (after := mended.settlement.owed.get(member, 0)) < before
        ]
        if not payments:
            return 0
        command = PayOwed(record.object_id, record.manifest_id, tuple(payments))
        try:
            self._catalog.commit(Command(SessionId(os.urandom(16)), 0, command))
        except ConflictError:
            # Another node paid, or the object was published anew; what is owed now is seen in the next round.
            return 0
        return sum(payment.before - payment.after for payment in payments)
