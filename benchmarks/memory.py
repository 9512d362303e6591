"""Memory above idle, at the highest moment: a network with its command, or a peer's processes with its command."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence

import psutil

from benchmarks.contenders import Contender
from benchmarks.figures import MIB, size_text
from benchmarks.kubo import Kubo
from benchmarks.network import Network
from benchmarks.objects import DEAD
from benchmarks.processes import BenchmarkError, curl, end_group, pss_bytes, tree_of
from benchmarks.record import Key, Record
from benchmarks.setting import Setting
from benchmarks.zstor import Zstor

SAMPLE_S = 0.1
"""Each look costs some 20 ms of a core with 25 processes, which is why nothing is timed here."""


class Watch:
    """Samples memory in a thread while something runs."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._idle = pss_bytes(contender.processes())
        self._peak = self._idle
        self._command: list[int] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def above_idle(self, action: Callable[[list[int]], object]) -> float:
        """Run something, which adds the processes it starts to its argument; give the MiB above idle at the peak."""
        self._thread.start()
        try:
            action(self._command)
        finally:
            self._done.set()
            self._thread.join()
        return (self._peak - self._idle) / MIB

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_S):
            found: list[psutil.Process] = self._contender.processes()
            for pid in self._command:
                found += tree_of(pid)
            self._peak = max(self._peak, pss_bytes(found))


def run_watched(contender: Contender, words: Sequence[str]) -> float:
    """Run a command with its memory counted whole.

    Raises: BenchmarkError.
    """

    def action(pids: list[int]) -> None:
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        pids.append(process.pid)
        try:
            _, errors = process.communicate()
        finally:
            end_group(process)
        if process.returncode != 0:
            raise BenchmarkError(f"{words[0]} ended with {process.returncode}: {errors[-400:]}")

    return Watch(contender).above_idle(action)


class Memory:
    """`memory`: each use once a round, on an unsynced network; the largest file's publish on the peers, too."""

    name = "memory"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def round(self, _run: int, record: Record) -> None:
        network = self._setting.unsynced()
        with contextlib.ExitStack() as ending:
            ending.callback(network.end)
            network.start()
            self._ours(network, record)
        for peer in (self._setting.kubo(), self._setting.zstor()):
            if peer is not None:
                with contextlib.ExitStack() as ending:
                    ending.callback(peer.end)
                    peer.start()
                    self._peer(peer, record)

    def _ours(self, network: Network, record: Record) -> None:
        size = max(self._setting.sizes)
        path, root, out = self._setting.file(size), self._setting.tree().root, self._setting.folder / "memory-out"

        def add(case: str, mib: float) -> None:
            record.add(Key("memory", case, network.name, "memory"), mib, "MiB")

        record.add(Key("memory", "idle", network.name, "memory"), pss_bytes(network.processes()) / MIB, "MiB")
        add(f"publish {size_text(size)}", run_watched(network, network.words("publish", path)))
        name = network.publish(path).name
        add("publish the tree", run_watched(network, network.words("publish", root)))
        tree_name = network.publish(root).name
        for state in ("", f", {DEAD}"):
            network.restart()
            if state:
                network.lose_four()
            add(f"gateway, {size_text(size)}{state}", self._served(network, network.url(name), size))
            add(f"get {size_text(size)}{state}", run_watched(network, network.words("get", name, "-o", out)))
            out.unlink()
            add(f"get the tree{state}", run_watched(network, network.words("get", tree_name, "-o", out)))
            shutil.rmtree(out)

    def _served(self, network: Network, url: str, size: int) -> float:
        return Watch(network).above_idle(lambda _: curl(url, size))

    def _peer(self, peer: Kubo | Zstor, record: Record) -> None:
        size = max(self._setting.sizes)
        path = self._setting.file(size)
        store = ["add", "--cid-version=1", "--quieter"] if isinstance(peer, Kubo) else ["store", "--file"]
        mib = run_watched(peer, peer.words(*store, path))
        record.add(Key("memory", f"publish {size_text(size)}", peer.name, "memory"), mib, "MiB")
