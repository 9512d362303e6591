"""A command's use of the network: opened for it, closed after it, refused clearly where none runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fungistor.node.home import Home

if TYPE_CHECKING:
    from fungistor.node.wiring import Network


@contextlib.contextmanager
def network_of(home: Home, *, offline: bool = False) -> Iterator[Network]:
    """Open the network of a home. `offline`: only what needs no network is asked of it, and none need run.

    Raises: UnavailableError where none runs.
    """
    if not offline:
        home.require_running()
    from fungistor.node.wiring import open_network  # after the check: an error should not wait for its imports

    network = open_network(home, offline=offline)
    try:
        yield network
    finally:
        network.close()
