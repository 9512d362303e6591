"""Runs a command of fungistor that kills itself (SIGKILL) at a step on disk or wire, counted from when a file came.

`python -m tests.e2e.killed_at FILE N WORDS...`; N = 0 lets it run, and says at the end how many steps there were. An
empty FILE counts from the start. Steps are what Python's audit hooks tell of: the product knows nothing of it.
"""

from __future__ import annotations

import os
import signal
import sys

from fungistor.node.cli.main import main

STEPS = {
    "open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate",
    "socket.connect", "socket.sendmsg", "sqlite3.connect",
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR


class Steps:
    """The hook, and its count."""

    def __init__(self, after: str, fatal: int) -> None:
        self._after = after
        self._fatal = fatal
        self._began = not after
        self.count = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in STEPS or (event == "open" and not int(str(arguments[2] or 0)) & WRITING):
            return
        if self._began:
            self.count += 1
            if self.count == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        elif event == "os.rename" and str(arguments[1]).endswith(self._after):
            self._began = True


if __name__ == "__main__":
    steps = Steps(sys.argv[1], int(sys.argv[2]))
    sys.addaudithook(steps)
    code = main(sys.argv[3:])
    print(f"steps={steps.count}", file=sys.stderr)
    sys.exit(code)
