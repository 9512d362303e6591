"""A tree of many small files: published, written back to disk whole and with four dead, and read one file a request."""

from __future__ import annotations

import contextlib
import shutil

from benchmarks.contenders import Contender
from benchmarks.figures import rotated
from benchmarks.kubo import Kubo
from benchmarks.network import Network
from benchmarks.processes import BenchmarkError, get
from benchmarks.record import KUBO, ZSTOR, Key, Record
from benchmarks.setting import Setting

PUBLISH, GET, GET_DEAD, FILE = "publish", "get", "get, 4 dead", "GET of one file, cold"


class Trees:
    """`tree`."""

    name = "tree"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def round(self, run: int, record: Record) -> None:
        made = self._setting.tree()
        record.note(f"The tree has {made.files:,} files of {made.bytes / 1e6:,.0f} MB.")
        for contender in rotated(self._setting.contenders(), run):
            if not contender.has_trees:
                record.note(f"{ZSTOR} stores files, not trees: a command a file would be the measure.")
                continue
            with contextlib.ExitStack() as ending:
                ending.callback(contender.end)
                contender.start()
                self._measure(contender, run, record)

    def _measure(self, contender: Contender, run: int, record: Record) -> None:
        root = self._setting.tree().root
        self._setting.settle(self._setting.tree_bytes)
        done = contender.publish(root)
        record.add(Key("tree", PUBLISH, contender.name), done.ran.seconds)
        record.add(Key("tree", PUBLISH, contender.name, "CPU of the command"), done.ran.cpu_s)
        if isinstance(contender, Network):
            record.add(Key("tree", PUBLISH, contender.name, "CPU of the network"), contender.network_cpu_s)
        self._get(contender, GET, done.name, record)
        contender.restart()
        for sample in self._setting.tree().samples:
            seconds, body = get(f"{contender.url(done.name)}/{sample}")
            if run == 0 and body != (root / sample).read_bytes():
                raise BenchmarkError(f"{contender.name} gave back another {sample}")
            record.add(Key("tree", FILE, contender.name), seconds)
        if contender.lose_four():
            self._get(contender, GET_DEAD, done.name, record)
        if run == 0 and contender.name == KUBO:
            self._same(done.name, record)

    def _get(self, contender: Contender, case: str, name: str, record: Record) -> None:
        target = self._setting.folder / "tree-out"
        if isinstance(contender, Kubo):
            contender.stop_gateway()
        elif case == GET:
            contender.restart()
        self._setting.settle(self._setting.tree_bytes)
        try:
            record.add(Key("tree", case, contender.name), contender.get(name, target).seconds)
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def _same(self, cid: str, record: Record) -> None:
        network = self._setting.unsynced()
        ran = network.run("publish", "--only-hash", "--hidden", "--profile", "kubo-cidv1", self._setting.tree().root)
        if ran.output.split()[0] != cid:
            raise BenchmarkError(f"the tree is {ran.output.split()[0]} here and {cid} in Kubo")
        record.note("The tree has the same CID in Kubo and here, by Kubo's profile.")
