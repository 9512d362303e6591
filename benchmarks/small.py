"""One 4 KiB object: the command and the publish inside it, the first answer of a fresh network and those after it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.contents import random_file
from benchmarks.figures import KIB, rotated
from benchmarks.network import Network
from benchmarks.processes import get
from benchmarks.record import Key, Record
from benchmarks.setting import Setting

SIZE = 4 * KIB
COMMANDS = 5
"""Commands a round, each a process and an object of its own."""
TOGETHER = 50
"""Objects of one command: what one costs when the process is there already."""

COMMAND = "publish, the whole command"
INSIDE = "publish, as its command says"
NEXT = "publish, one of 50 of a command"
FIRST = "GET, the first of a fresh network"
OTHER = "GET, others never asked for"
RETRIEVE = "retrieve, the whole command"


class Small:
    """`small`."""

    name = "small"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def round(self, run: int, record: Record) -> None:
        folder = self._setting.folder / "small"
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{run}-{number}.bin" for number in range(COMMANDS + TOGETHER)]
        for number, path in enumerate(paths):
            random_file(path, SIZE, run * 1000 + number + 1)
        for contender in rotated(self._setting.contenders(), run):
            with contextlib.ExitStack() as ending:
                ending.callback(contender.end)
                contender.start()
                self._measure(contender, paths, record)
        for path in paths:
            path.unlink()

    def _measure(self, contender: Contender, paths: list[Path], record: Record) -> None:
        os.sync()
        names: list[str] = []
        for path in paths[:COMMANDS]:
            done = contender.publish(path)
            names.append(done.name)
            record.add(Key("small", COMMAND, contender.name), done.ran.seconds)
            if done.inner_s is not None:
                record.add(Key("small", INSIDE, contender.name), done.inner_s)
        if isinstance(contender, Network):
            for done in contender.publish_many(paths[COMMANDS:]):
                names.append(done.name)
                if done.inner_s is not None:
                    record.add(Key("small", NEXT, contender.name), done.inner_s)
        contender.restart()
        if not contender.has_gateway:
            for name in names:
                record.add(Key("small", RETRIEVE, contender.name), contender.fetch(name, SIZE).seconds)
            return
        for number, name in enumerate(names):
            seconds, _ = get(contender.url(name))
            record.add(Key("small", OTHER if number else FIRST, contender.name), seconds)


class Up:
    """`up`: from the command until requests are served, on an empty folder and on what was left there."""

    name = "up"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def round(self, run: int, record: Record) -> None:
        networks = rotated([self._setting.unsynced(), self._setting.durable()], run)
        for network in networks:
            with contextlib.ExitStack() as ending:
                ending.callback(network.end)
                os.sync()
                network.start()
                record.add(Key("up", "first start", network.name), network.ready_s)
                network.restart()
                record.add(Key("up", "second start", network.name), network.ready_s)
        kubo = self._setting.kubo()
        if kubo is not None:
            with contextlib.ExitStack() as ending:
                ending.callback(kubo.end)
                kubo.start()
                started = time.perf_counter()
                kubo.restart()
                record.add(Key("up", "second start", kubo.name), time.perf_counter() - started)
