"""A catalog that was gathered takes its place in a home, and goes on under a log of its own.

That log's copies come into the pool in place of the old ones. Each step is done again where it was cut short.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace

from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.state import State
from fungistor.errors import NotFoundError
from fungistor.keys.files import ROOT_KEY_VARIABLE, load_node_keys, save_node_keys
from fungistor.keys.issue import issue
from fungistor.keys.ring import NodeKeys, network_key_of
from fungistor.keys.table import KeyTable
from fungistor.node.catalog_move import bring, share_keys
from fungistor.node.catalog_place import catalog_url, etcd_log, with_options
from fungistor.node.config import Config, load_config, save_config
from fungistor.node.copies.findings import Asked, Rebuilt
from fungistor.node.copies.formats import Anchor, CopyFormats
from fungistor.node.copies.reading import CopyReader
from fungistor.node.enrolment import enrol
from fungistor.node.files import read_bounded, sync_folder, write_atomic
from fungistor.node.home import Home
from fungistor.node.network import Network
from fungistor.node.wiring import open_network
from fungistor.objects.results import Progress

READY = "ready.json"
READY_BYTES_MAX = 16 << 20
DROPS_A_FLIGHT = 512


@dataclass(frozen=True, slots=True)
class Ready:
    """What was gathered: the identity of the log to come, the anchor gone by, and the last entry found."""

    log: bytes
    anchor: Anchor
    last: int
    found: Rebuilt

    def save(self, folder: str, formats: CopyFormats) -> None:
        """Say so durably: from here on nothing is gathered anew."""
        for name in os.listdir(folder):
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        said = {
            "log": self.log.hex(),
            "anchor": base64.b64encode(formats.seal_anchor(self.anchor)).decode(),
            "last": self.last,
            "found": asdict(self.found),
        }
        write_atomic(os.path.join(folder, READY), json.dumps(said).encode() + b"\n")

    @classmethod
    def load(cls, folder: str, formats: CopyFormats) -> Ready | None:
        """What an earlier run said, if it came so far. Raises: CorruptError: with another root key."""
        try:
            said = json.loads(read_bounded(os.path.join(folder, READY), READY_BYTES_MAX) or b"")
        except FileNotFoundError:
            return None
        found = Rebuilt(**{**said["found"], "missing": tuple(said["found"]["missing"])})
        anchor = formats.open_anchor(base64.b64decode(said["anchor"]))
        return cls(bytes.fromhex(said["log"]), anchor, said["last"], found)


class Placing:
    """Puts what was gathered in a folder into a home."""

    def __init__(self, home: Home, asked: Asked, folder: str, ready: Ready, progress: Progress) -> None:
        self._home = home
        self._asked = asked
        self._folder = folder
        self._ready = ready
        self._progress = progress

    def run(self) -> str:
        """All of it; return where the catalog is now.

        Raises: UnavailableError: the pool or etcd cannot be had now; run again it goes on.
        """
        home, asked = self._home, self._asked
        config = replace(with_options(load_config(home), asked.catalog), pool=os.path.abspath(asked.pool))
        if config.catalog in ("sqlite:", f"sqlite:{home.catalog_log}"):
            config = replace(config, catalog=None)
        keys = self._node_keys()
        self._name_anew()
        if config.catalog is not None:
            self._bring_to_etcd(config)
        for name, target in (("keys.sqlite", home.key_table), ("state.sqlite", home.catalog_state)):
            self._move(name, target)
        if config.catalog is None:
            self._move("log.sqlite", home.catalog_log)
        else:
            share_keys(home, config, keys.network_key)
        save_config(home, config)
        with contextlib.closing(open_network(home)) as network:
            self._go_on(network, keys)
        return catalog_url(home, config)

    def _node_keys(self) -> NodeKeys:
        path = os.path.join(self._home.keys, "node.key")
        try:
            keys = load_node_keys(path)
        except NotFoundError:
            with contextlib.closing(KeyTable(os.path.join(self._folder, "keys.sqlite"))) as table:
                keys = issue(self._asked.root, table, table.tenants())
            save_node_keys(path, keys)
        else:
            keys.check_root(self._asked.root)
        return keys

    def _name_anew(self) -> None:
        path = os.path.join(self._folder, "log.sqlite")
        if os.path.exists(path):
            with contextlib.closing(SqliteLog(path)) as log:
                log.become(self._ready.log)
        path = os.path.join(self._folder, "state.sqlite")
        if os.path.exists(path):
            with contextlib.closing(State(path)) as state:
                state.adopt(self._ready.log)

    def _bring_to_etcd(self, config: Config) -> None:
        path = os.path.join(self._folder, "log.sqlite")
        with contextlib.closing(SqliteLog(path)) as source, contextlib.closing(etcd_log(config)) as target:
            bring(source, target, self._progress)

    def _move(self, name: str, target: str) -> None:
        source = os.path.join(self._folder, name)
        if os.path.exists(source):
            os.replace(source, target)
            sync_folder(os.path.dirname(target))

    def _go_on(self, network: Network, keys: NodeKeys) -> None:
        """Let this node in, and have the pool hold this log and no longer the one before."""
        home, before = self._home, self._ready.anchor
        copier = network.parts.copier
        copier.supersede(before.log)
        given = {ROOT_KEY_VARIABLE: base64.b64encode(self._asked.root).decode()}
        enrol(home, keys, network.catalog, given)
        self._progress(0, None, "bringing the log into the pool anew")
        copier.want_dropped_erased(network.catalog)
        while copier.tend():
            pass
        network.parts.snapshots.note([snapshot.id for snapshot in before.snapshots])
        formats = CopyFormats(network_key_of(self._asked.root))
        pool = network.parts.pool
        reader = CopyReader(pool, formats)
        for start in range(before.first + 1, self._ready.last + 1, DROPS_A_FLIGHT):
            numbers = range(start, min(self._ready.last + 1, start + DROPS_A_FLIGHT))
            segments = [formats.segment_name(before.log, number) for number in numbers]
            pool.forget(reader.claimed_names(before.log, numbers) + segments)
