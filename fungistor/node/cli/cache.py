"""cache purge, cache status: what gateway workers keep on disk."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fungistor.node.cli.output import Output
from fungistor.node.config import load_config
from fungistor.node.home import Home
from fungistor.node.use import network_of

if TYPE_CHECKING:
    from fungistor.cache.disk import DiskCache


@contextlib.contextmanager
def _disk(home: Home) -> Iterator[DiskCache]:
    if not home.exists():
        home.require_running()  # says that there is none
    home.check_version()
    from fungistor.node.cache_place import open_cache_disk  # after the checks: an error should not wait for its imports

    disk = open_cache_disk(home, load_config(home))
    try:
        yield disk
    finally:
        disk.close()


def told(home: Home) -> dict[str, object]:
    """What is kept, for people and programs."""
    with _disk(home) as disk:
        said = disk.status()
    return {"blocks": said.spans, "bytes": said.bytes, "bytes_max": said.bytes_max, "purges": said.epoch}


def purge(arguments: argparse.Namespace, output: Output) -> int:
    home = Home.resolve(arguments.home)
    with contextlib.ExitStack() as stack:
        if arguments.cid is None:
            disk = stack.enter_context(_disk(home))
            freed = disk.status().bytes
            dropped = disk.purge()
        else:
            # Where its blocks lie is told by its manifest, before anything is forgotten.
            keys = list(stack.enter_context(network_of(home)).cached_spans(arguments.cid))
            disk = stack.enter_context(_disk(home))
            dropped, freed = disk.drop(keys), 0
    if output.as_json:
        output.json_line({"cid": arguments.cid, "blocks": dropped, "freed": freed})
    else:
        output.line(f"{dropped} blocks forgotten; workers let go of what they hold in memory within a second")
    return 0


def status(arguments: argparse.Namespace, output: Output) -> int:
    output.fields(
        told(Home.resolve(arguments.home)),
        (("blocks", "blocks"), ("bytes", "bytes:size"), ("at most", "bytes_max:size"), ("purges", "purges")),
    )
    return 0
