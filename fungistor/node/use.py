"""A command's use of the network: opened for it, closed after it, refused clearly where none runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fungistor.node.config import load_config
from fungistor.node.home import Home

if TYPE_CHECKING:
    from fungistor.node.acting import Acting
    from fungistor.node.network import Network
    from fungistor.node.offline import OfflineNetwork


@contextlib.contextmanager
def network_of(home: Home, acting: Acting | None = None) -> Iterator[Network]:
    """Open the network of a home, for somebody or for the network's own tenant.

    Raises: UnavailableError where none runs, and the home has not joined one that runs elsewhere.
    """
    if load_config(home).pool is None:
        home.require_running()
    else:
        home.check_version()  # its members run elsewhere
    from fungistor.node.wiring import open_network  # after the check: an error should not wait for its imports

    with contextlib.closing(open_network(home, acting=acting)) as network:
        yield network


@contextlib.contextmanager
def publisher_of(home: Home, acting: Acting, *, only_hash: bool) -> Iterator[Network | OfflineNetwork]:
    """Open what a publish needs, which with `only_hash` is no network at all."""
    if not only_hash:
        with network_of(home, acting) as network:
            yield network
        return
    from fungistor.node.wiring import open_offline

    with contextlib.closing(open_offline()) as offline:
        yield offline
