"""`fungistor up`: start everything of a network in order, keep it running, and take it down in the other order."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import FrameType
from typing import cast

import anyio
import anyio.to_thread

from fungistor.cache.disk import DiskCache, DiskStatus
from fungistor.errors import FailedError, FungiStorError, InvalidError
from fungistor.ids import MemberId
from fungistor.keys.passphrase import Ask
from fungistor.node import pool_requests
from fungistor.node.admin import AdminServer
from fungistor.node.cache_place import open_cache_disk
from fungistor.node.catalog_place import NOTHING_SAID, CatalogOptions, catalog_url, placed
from fungistor.node.children import Child, Children
from fungistor.node.claims import ZdbClaims
from fungistor.node.config import Config, load_config, save_config
from fungistor.node.control import ControlServer, Message
from fungistor.node.copies.rebuild import refuse_half_rebuilt
from fungistor.node.enrolment import Standing
from fungistor.node.files import write_atomic
from fungistor.node.first_keys import ensure_keys
from fungistor.node.fleet import Fleet
from fungistor.node.gateways import Gateways, bind_gateway, gateway_url
from fungistor.node.home import Home
from fungistor.node.home_upgrade import upgrade
from fungistor.node.identity import member_identity
from fungistor.node.join import join, joined_keys
from fungistor.node.layouts import CatalogRoll
from fungistor.node.network import Network
from fungistor.node.new_members import new_members
from fungistor.node.pool_file import PoolMember, load_pool, save_pool
from fungistor.node.removal import Removal
from fungistor.node.repairs import Repairs
from fungistor.node.usage import told_usage
from fungistor.node.wiring import open_network
from fungistor.node.workers import Worker, run_workers
from fungistor.pool import IDENTITY_KEY

READY_VERSION = 1
MEMBERS_DEFAULT = 20
MEMBERS_MIN = 5
"""Fewer than m + 1 members could not lose any four."""

PROBE_EVERY_S = 1.0
MEND_EVERY_S = 0.25
PAY_EVERY_S = 2.0
PAY_OBJECTS = 16
INDEX_EVERY_S = 0.5
NAMES_EVERY_S = 0.5
SNAPSHOT_EVERY_S = 5.0
COPIES_EVERY_S = 1.0
REPORT_EVERY_S = 3600.0
"""What a node says of itself takes some 150 bytes of the log each time, and none where nothing was published since."""
EXPIRE_EVERY_S = 5.0
CLEAR_EVERY_S = 60.0

FILES_MAX = 65_536

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `up` was asked. None: as this home is already, or the default."""

    home: Home
    members: int | None = None
    gateway: str | None = None
    ready_file: str | None = None
    sync: bool = True
    gateway_hosts: str | None = None
    admin: str | None = None
    catalog: CatalogOptions = NOTHING_SAID
    pool: str | None = None
    """The pool file of members that other nodes run: then this one runs none."""
    prompt: Ask | None = None
    """Asks a person for the root key's passphrase, where the node's keys are yet to be issued."""


class _Stopping(BaseException):
    """A signal came while things were being started. No error: the drain follows."""


def serve(options: UpOptions, *, say: Callable[[str], None], on_ready: Callable[[Message], None]) -> int:
    """Run a network until a signal comes. Called in the main thread, once a process.

    `say` tells a person; `on_ready` gets the ready object when requests are served.

    Raises: FungiStorError where it cannot be started, or where its processes were killed all at once.
    """
    if options.members is not None and options.members < MEMBERS_MIN:
        raise InvalidError(
            f"{options.members} members are too few: any four may die, so it takes at least {MEMBERS_MIN}",
            hint="20 is the default",
        )
    options.home.prepare()
    lock = options.home.lock()
    try:
        for version in upgrade(options.home):
            say(f"the home {options.home.root} was upgraded to version {version}")
    except BaseException:
        os.close(lock)
        raise
    up = _Up(options, say)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    # Under nohup a hang-up is ignored, and stays so.
    heeded = [number for number in SIGNALS if number != signal.SIGHUP or before[number] is not signal.SIG_IGN]
    try:
        _raise_file_limit()
        _on_signals(heeded, lambda: _stop_starting(heeded, say))
        up.start()
        on_ready(up.ready_object())
        # From here a signal is only noted: one that came into the middle of a running event loop would be lost.
        _on_signals(heeded, up.signalled.set)
        anyio.run(up.run, heeded)
    except _Stopping:
        pass
    finally:
        _on_signals(heeded, lambda: _end_at_once(say))
        up.close()
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(lock)
    return 0


def _on_signals(numbers: Iterable[signal.Signals], act: Callable[[], None]) -> None:
    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        act()

    for number in numbers:
        signal.signal(number, handle)


def _stop_starting(numbers: Iterable[signal.Signals], say: Callable[[str], None]) -> None:
    _on_signals(numbers, lambda: _end_at_once(say))  # first: a second signal must not interrupt the drain like this
    raise _Stopping


def _end_at_once(say: Callable[[str], None]) -> None:
    say("stopped at once")
    os._exit(130)  # the zygote, and with it every process, follows


def _raise_file_limit() -> None:
    """Have as many descriptors as the system allows: a gateway worker needs one a client, and some a member."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass(slots=True)
class _Up:
    """What is running, in the order it was started. Each part may be missing while things start or stop."""

    options: UpOptions
    say: Callable[[str], None]
    listener: socket.socket | None = None
    children: Children | None = None
    network: Network | None = None
    standing: Standing | None = None
    fleet: Fleet | None = None
    gateways: Gateways | None = None
    control: ControlServer | None = None
    admin: AdminServer | None = None
    cache: DiskCache | None = None
    states: Message = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    removal: Removal | None = None
    change_lock: threading.Lock = field(default_factory=threading.Lock)
    ready_file: str = ""
    signalled: threading.Event = field(default_factory=threading.Event)

    @property
    def home(self) -> Home:
        return self.options.home

    def start(self) -> None:
        home = self.home
        refuse_half_rebuilt(home)
        config = load_config(home)
        if not os.path.exists(home.config_file):
            save_config(home, config)
        config = self._placed(config)
        self._clear_ready_file()
        # First, since a taken port is the likeliest reason to end here, and nothing needs undoing yet.
        self.listener = bind_gateway(self.options.gateway or config.gateway)
        # At once, since what is opened below looks there whether to wait for the disk.
        running = {"pid": os.getpid(), "gateway": gateway_url(self.listener), "sync": self.options.sync}
        write_atomic(home.running_file, json.dumps(running).encode(), sync=False)
        self.children = Children(self._child_ended)
        joined = config.pool is not None
        keys = joined_keys(home) if joined else ensure_keys(home, self.say, prompt=self.options.prompt)
        members = [] if joined else self._members()
        self.network = open_network(home)
        self.standing = Standing(home, keys, self.network.catalog)
        self.standing.begin()
        roll = CatalogRoll(self.network.catalog)
        first = not roll.numbers()
        self.fleet = Fleet(
            home,
            self.children,
            members,
            claims=ZdbClaims(lambda spec, number: (IDENTITY_KEY, member_identity(keys.network_key, number, spec.id))),
            roll=roll,
            # A member of ours gives a shard once, to a cache: mapping it gains nothing, and counts as memory.
            daemon_options={"no_sync": not self.options.sync, "max_mapped": 0},
            on_change=self._pool_changed,
        )
        if joined:
            self.states = self.network.probe()
        else:
            self.fleet.start_all()
        if not joined and (first or tuple(members) != self.fleet.specs()):
            self.network.follow()
        self.gateways = Gateways(
            self.children, self.listener, self._gateway_words(), config.gateway_workers, time.monotonic
        )
        self.gateways.start()
        self.control = ControlServer(home, self._answer)
        if self.options.admin is not None:
            self.cache = open_cache_disk(home, config)
            self.admin = AdminServer(self.options.admin, home.gateway_numbers, self._look)
        self._announce()

    def _placed(self, config: Config) -> Config:
        options = self.options
        if options.pool is None and config.pool is None:
            return placed(self.home, config, options.catalog)
        if options.members is not None:
            raise InvalidError(
                "--members with --pool: a node runs members of its own, or none", hint="leave one of them out"
            )
        join(self.home, options.pool, options.catalog)
        return load_config(self.home)

    def _member_lines(self) -> list[Message]:
        """What is known of each member: of those that run here their processes, of others how they last answered."""
        assert self.fleet is not None and self.network is not None
        if load_config(self.home).pool is None:
            return self.fleet.lines()
        return [
            {"id": member.id, "address": member.address, "zone": "/".join(member.zone), "folder": None, "pid": None}
            | cast("Message", self.states.get(member.id, {"state": "down", "reason": "in no layout yet"}))
            for member in self.network.members()
        ]

    def _gateway_words(self) -> list[str]:
        words = ["--home", self.home.root]
        if self.options.gateway_hosts is not None:
            words += ["--gateway-hosts", os.path.abspath(self.options.gateway_hosts)]
        return words

    async def run(self, signals: Sequence[signal.Signals]) -> None:
        """Keep everything running until a signal comes.

        Raises: FailedError where the zygote, and with it every process, is gone.
        """
        assert self.fleet is not None and self.gateways is not None and self.children is not None
        assert self.standing is not None
        self.workers = [
            Worker("member mending", MEND_EVERY_S, self.fleet.mend),
            Worker("gateway mending", MEND_EVERY_S, self.gateways.mend),
            Worker("probing", PROBE_EVERY_S, self._probe),
            Worker("paying owed shards", PAY_EVERY_S, self._pay),
            Worker("block index", INDEX_EVERY_S, self._index),
            Worker("names", NAMES_EVERY_S, self._names),
            Worker("catalog snapshots", SNAPSHOT_EVERY_S, self._snapshot),
            Worker("catalog in the pool", COPIES_EVERY_S, self._copies),
            Worker("telling other nodes", REPORT_EVERY_S, self.standing.step),
            Worker("expiry", EXPIRE_EVERY_S, self._expire),
            Worker("old copies", CLEAR_EVERY_S, self._clear),
        ]
        async with anyio.create_task_group() as group:
            group.start_soon(run_workers, self.workers)
            group.start_soon(self._end_on_signal, signals, group.cancel_scope)
            # Left behind when a signal comes; the thread ends with the zygote, which the drain ends.
            await anyio.to_thread.run_sync(self.children.wait_broken, abandon_on_cancel=True)
            group.cancel_scope.cancel()
        if self.children.broken:
            raise FailedError(
                "the process that starts members and gateways was killed, and they with it",
                hint="start the network again with `fungistor up`; what was acknowledged is on its disks",
            )

    def ready_object(self) -> Message:
        """What the contract says of the ready file."""
        assert self.listener is not None and self.fleet is not None
        return {
            "version": READY_VERSION,
            "gateway": gateway_url(self.listener),
            "admin": None if self.admin is None else self.admin.url,
            "home": self.home.root,
            "pid": os.getpid(),
            "catalog": catalog_url(self.home, load_config(self.home)),
            "members": [
                {key: line[key] for key in ("id", "address", "folder", "zone")} for line in self._member_lines()
            ],
        }

    def close(self) -> None:
        """Take down what was started: no new requests, then those under way, then what they stand on."""
        self.say("stopping")
        for path in (self.ready_file, self.home.running_file, self.home.states_file):
            if path:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        for worker in self.workers:
            worker.ended = True
        steps = [
            part.close
            for part in (self.admin, self.cache, self.control, self.gateways, self.network, self.fleet, self.children)
            if part
        ]
        for step in steps:
            try:
                step()
            except (FungiStorError, OSError) as error:
                log.warning("while stopping: %s", error)
        if self.listener is not None:
            self.listener.close()

    async def _end_on_signal(self, numbers: Sequence[signal.Signals], scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(*numbers) as signals:
            if not self.signalled.is_set():  # by one that came before the receiver stood
                async for number in signals:
                    if number != signal.SIGHUP or _has_terminal():
                        break
                    self._reload()
            scope.cancel()

    def _reload(self) -> None:
        log.info("SIGHUP: gateways read their lists, hosts and limits anew")
        if self.gateways is not None:
            self.gateways.reload()

    def _look(self) -> Message:
        """What operators may see of this network at one glance, without asking members."""
        assert self.network is not None and self.fleet is not None
        disk = DiskStatus(0, 0, 0, 0) if self.cache is None else self.cache.status()
        status = self.network.catalog.status()
        return {
            "members": self._member_lines(),
            "workers": [worker.to_json() for worker in self.workers],
            "gateways": [] if self.gateways is None else self.gateways.pids(),
            "owed_shards": status.owed_shards,
            "revision": int(status.revision),
            "objects": status.objects,
            "tenants": told_usage(self.network.catalog.tenants),
            "cache_bytes": disk.bytes,
            "cache_blocks": disk.spans,
        }

    def _clear_ready_file(self) -> None:
        """Take away a ready file that a killed `up` left, before anybody believes it."""
        if not self.options.ready_file:
            return
        path = os.path.abspath(self.options.ready_file)
        if not os.path.isdir(os.path.dirname(path)):
            raise InvalidError(f"the ready file's folder {os.path.dirname(path)} does not exist")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.ready_file = path

    def _members(self) -> list[PoolMember]:
        home, asked = self.home, self.options.members
        if not os.path.exists(home.pool_file):
            if home.has_catalog:
                raise FailedError(
                    f"{home.pool_file} is gone, and with it the addresses and passwords of this network's members",
                    hint="restore it from a copy of the home",
                )
            members = new_members(asked or MEMBERS_DEFAULT)
            save_pool(home.pool_file, members)
            return members
        members = list(load_pool(home.pool_file))
        if asked is not None and asked != len(members):
            raise InvalidError(
                f"the network in {home.root} has {len(members)} members, not {asked}",
                hint="leave out --members, and use `fungistor pool add`; or give another --home",
            )
        return members

    def _announce(self) -> None:
        said = self.ready_object()
        assert self.fleet is not None
        lines = self._member_lines()
        up = sum(line["state"] == "up" for line in lines)
        self.say(f"FungiStor is up: {up} of {len(lines)} members, in {self.home.root}")
        self.say(f"  gateway  {said['gateway']}/ipfs/CID")
        self.say("  publish  fungistor publish PATH")
        self.say("  stop     Ctrl-C")
        if not self.options.sync:
            self.say("  nothing waits for the disk (--no-sync): what a power cut takes is gone")
        if self.ready_file:
            write_atomic(self.ready_file, json.dumps(said).encode() + b"\n", mode=0o644, sync=False)

    def _answer(self, request: Message) -> Message:
        fleet = self.fleet
        assert fleet is not None
        if request.get("op") == "members":
            return {"members": self._member_lines()}
        if request.get("op") == "workers":
            return {"workers": [worker.to_json() for worker in self.workers]}
        if request.get("op") == "pool":
            return pool_requests.answer(fleet, request).to_json()
        verbs: dict[object, Callable[[MemberId], Message]] = {
            "stop": fleet.stop,
            "start": lambda name: fleet.start(name, reset=bool(request.get("reset"))),
            "pause": fleet.pause,
            "resume": fleet.resume,
        }
        verb, ids = verbs.get(request.get("verb")), request.get("ids")
        if request.get("op") != "member" or verb is None or not isinstance(ids, list) or not ids:
            raise InvalidError("this control request is not known", hint="is this `fungistor` of another version?")
        # All names are looked up before anything is done to one of them.
        names = list(dict.fromkeys(fleet.find(str(name)) for name in ids))
        with ThreadPoolExecutor(min(len(names), 4), thread_name_prefix="member") as pool:
            results = list(pool.map(lambda name: _attempt(verb, name), names))
        failures = [result for result in results if isinstance(result, FungiStorError)]
        if failures:
            raise failures[0]
        return {"members": cast("list[Message]", results)}

    def _probe(self) -> bool:
        """Ask every member whether it is there, and leave the answers where short commands find a first guess."""
        assert self.network is not None and self.fleet is not None
        self.states = states = self.network.probe()
        for line in self.fleet.lines():
            if line["state"] != "up":  # what was done to a member by hand is known better here than by asking it
                states[str(line["id"])] = {"state": line["state"], "reason": line["reason"]}
        write_atomic(self.home.states_file, json.dumps(states).encode(), sync=False)
        return False

    def _pay(self) -> bool:
        assert self.network is not None
        return self.network.pay_owed(PAY_OBJECTS) > 0

    def _index(self) -> bool:
        assert self.network is not None
        more = self.network.catch_up_index()
        if self.network.has_moved():
            self._pool_changed()
        return more

    def _names(self) -> bool:
        assert self.network is not None
        return self.network.follow_names()

    def _expire(self) -> bool:
        assert self.network is not None
        self.removal = self.removal or Removal(self.network.parts)
        return self.removal.expire()

    def _clear(self) -> bool:
        assert self.network is not None
        return Repairs(self.network.parts).clear_due()

    def _snapshot(self) -> bool:
        assert self.network is not None
        self.network.keep_snapshots()
        return False

    def _copies(self) -> bool:
        assert self.network is not None
        return self.network.keep_copies()

    def _pool_changed(self) -> None:
        """A member has another address or number: let everything that keeps connections take it up."""
        with self.change_lock:
            assert self.network is not None
            self.network.follow()
            if self.gateways is not None:
                self.gateways.replace_all()

    def _child_ended(self, child: Child) -> None:
        log.debug("%s (process %d) ended with status %s", child.name, child.pid, child.status)


def _has_terminal() -> bool:
    """Tell whether somebody sits before this process: then a hang-up means that they left, else it asks to reload."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _attempt(verb: Callable[[MemberId], Message], name: MemberId) -> Message | FungiStorError:
    try:
        return verb(name)
    except FungiStorError as error:
        return error
