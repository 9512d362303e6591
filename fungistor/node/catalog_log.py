"""The log as the processes of a home use it: appends are shared, and on etcd large entries lie on members."""

from __future__ import annotations

from collections.abc import Sequence

from fungistor.catalog.claims import CLAIM_LEVEL, ClaimCheckLog
from fungistor.catalog.log import Log
from fungistor.catalog.shared_appends import SharedAppends
from fungistor.catalog.state import State
from fungistor.node.catalog_place import open_log
from fungistor.node.config import Config
from fungistor.node.copies.deposit import Claimed, EntryDeposit
from fungistor.node.copies.formats import CopyFormats
from fungistor.node.copies.reading import numbered_specs
from fungistor.node.home import Home
from fungistor.node.members import pool_members
from fungistor.pool.members import MemberSpec


def open_home_log(
    home: Home, config: Config, network_key: bytes, state: State, *, sync: bool = True
) -> tuple[Log, Claimed | None]:
    """Open it, and tell where its large entries are if they are elsewhere. Raises as `open_log`."""
    shared = SharedAppends(open_log(home, config, sync=sync), home.appends)
    if config.catalog is None:
        return shared, None

    def places() -> Sequence[MemberSpec]:
        return numbered_specs(pool_members(home, config))

    deposit = EntryDeposit(CopyFormats(network_key), shared.identity, places, home.unsettled)
    claiming = ClaimCheckLog(shared, deposit, lambda: state.level() >= CLAIM_LEVEL)
    return claiming, Claimed(claiming, deposit)
