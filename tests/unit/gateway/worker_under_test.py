"""A worker process over content in memory: what `python -m gateway` is, without a home.

Run with: listening descriptor, ready descriptor, parent's process id.
"""

from __future__ import annotations

import socket
import sys

from fungistor.testing.memory_content import MemoryContent
from gateway.settings import Settings
from gateway.worker import die_with, ignore_interrupt, serve

BODY = bytes(range(256)) * (160 << 10)
"""40 MiB: longer than any socket's buffers."""


def main() -> None:
    descriptor, ready, parent = (int(argument) for argument in sys.argv[1:])
    die_with(parent)
    ignore_interrupt()
    content = MemoryContent()
    content.add_file(BODY)
    with socket.socket(fileno=descriptor) as listener:
        serve(content, listener, ready_fd=ready, settings=Settings(access_log=True, drain_s=2))


if __name__ == "__main__":
    main()
