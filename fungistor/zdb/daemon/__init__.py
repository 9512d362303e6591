"""The member daemon: one process, one event loop, the original 0-db's protocol and disk format.

`run(config)` serves; `parse_arguments` reads the command line of `fungistor zdb`. A namespace keeps its live keys in
memory (`namespace`), its files in `segments`; `recovery` opens them after any end; `barrier` makes them durable.
"""

from __future__ import annotations

from fungistor.zdb.daemon.arguments import parse_arguments
from fungistor.zdb.daemon.config import DaemonConfig
from fungistor.zdb.daemon.server import run

__all__ = ["DaemonConfig", "parse_arguments", "run"]
