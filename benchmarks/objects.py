"""Files of several sizes: published into an empty store, fetched cold, and fetched with four places dead."""

from __future__ import annotations

import contextlib
import hashlib

from benchmarks.contenders import Contender
from benchmarks.figures import rotated, size_text
from benchmarks.network import Network
from benchmarks.processes import BenchmarkError, get
from benchmarks.record import DURABLE, KUBO, Key, Record
from benchmarks.setting import Setting

HEALTHY, DEAD = "healthy", "4 dead"
SAME_PROFILE = "profile kubo-cidv1"


class Objects:
    """`publish` and `fetch`: one walk through all contenders a round, each up alone and from empty."""

    def __init__(self, setting: Setting, *, publish: bool, fetch: bool) -> None:
        self.name = " ".join(name for name, wanted in (("publish", publish), ("fetch", fetch)) if wanted)
        self._setting = setting
        self._publish = publish
        self._fetch = fetch

    def round(self, run: int, record: Record) -> None:
        sizes = sorted(self._setting.sizes)
        for contender in rotated(self._setting.contenders(), run):
            if not self._publish and contender.name == DURABLE:
                continue
            with contextlib.ExitStack() as ending:
                ending.callback(contender.end)
                contender.start()
                names = self._store(contender, sizes, record)
                # What a network syncs does not change how it reads.
                if self._fetch and contender.name != DURABLE:
                    self._read(contender, names, run, record)

    def _store(self, contender: Contender, sizes: list[int], record: Record) -> dict[int, str]:
        names: dict[int, str] = {}
        for size in sizes:
            path = self._setting.file(size)
            self._setting.settle(size)
            done = contender.publish(path)
            names[size] = done.name
            if not self._publish:
                continue
            record.add(Key("publish", size_text(size), contender.name), done.ran.seconds)
            record.add(Key("publish", size_text(size), contender.name, "CPU of the command"), done.ran.cpu_s)
            if done.inner_s is not None:
                record.add(Key("publish", size_text(size), contender.name, "without process start"), done.inner_s)
            if isinstance(contender, Network):
                record.add(
                    Key("publish", size_text(size), contender.name, "CPU of the network"), contender.network_cpu_s
                )
        return names

    def _read(self, contender: Contender, names: dict[int, str], run: int, record: Record) -> None:
        for state in (HEALTHY, DEAD):
            contender.restart()
            if state == DEAD and not contender.lose_four():
                continue
            # Smallest first: the first answer after a start is the coldest.
            for size, name in sorted(names.items()):
                ran = contender.fetch(name, size)
                record.add(Key(f"fetch, {state}", size_text(size), contender.name), ran.seconds)
                if isinstance(contender, Network):
                    used = contender.network_cpu_s
                    record.add(Key(f"fetch, {state}", size_text(size), contender.name, "CPU of the network"), used)
            if run == 0 and contender.has_gateway:
                self._check(contender, names)

    def _check(self, contender: Contender, names: dict[int, str]) -> None:
        for size, name in names.items():
            with self._setting.file(size).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            _, body = get(contender.url(name))
            if hashlib.sha256(body).digest() != digest.digest():
                raise BenchmarkError(f"{contender.name} gave back other bytes than it took ({size_text(size)})")


class SameProfile:
    """The largest file by Kubo's own profile: both must come to the same CID, and ours cuts blocks as small as its."""

    name = "publish"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def round(self, run: int, record: Record) -> None:
        size = max(self._setting.sizes)
        path = self._setting.file(size)
        network = self._setting.unsynced()
        with contextlib.ExitStack() as ending:
            ending.callback(network.end)
            network.start()
            self._setting.settle(size)
            ran = network.run("--json", "publish", "--profile", "kubo-cidv1", path)
            record.add(Key("publish", f"{size_text(size)}, {SAME_PROFILE}", network.name), ran.seconds)
        kubo = self._setting.kubo()
        if run == 0 and kubo is not None:
            with contextlib.ExitStack() as ending:
                ending.callback(kubo.end)
                kubo.start()
                same = f'"{kubo.publish(path).name}"' in ran.output
                if not same:
                    raise BenchmarkError(f"{KUBO} has another CID for the same bytes and profile")
                record.note(f"{size_text(size)} has the same CID in Kubo and here, by Kubo's profile.")
