"""What Linux knows of processes: tie one's life to another's, see its state."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
NAME_BYTES_MAX = 15

DATAGRAM_BYTES_MAX = 64 << 10
"""Of one message between `up` and the zygote; they are a few hundred bytes."""


def die_with(parent: int) -> bool:
    """Have this process killed at once when its parent ends, however that ends. False if it already has.

    The signal comes when the *thread* that forked this process ends, so a parent forks from one that lasts.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent


def set_name(name: str) -> None:
    """Name this process for `ps` and `top`."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:NAME_BYTES_MAX], 0, 0, 0)


def state_of(pid: int) -> str | None:
    """Give the letter of a process's state (R, S, D, T, Z ...); None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat[stat.rindex(b")") + 2 :][:1].decode("ascii")  # the name before it may hold anything


def is_stopped(pid: int) -> bool:
    """Tell whether every thread of a process is stopped: the process's own state is only that of its first."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return False
    for thread in threads:
        state = state_of_thread(pid, thread)
        if state is not None and state not in "Tt":
            return False
    return bool(threads)


def state_of_thread(pid: int, thread: str) -> str | None:
    """Give the letter of one thread's state; None where it ended."""
    try:
        with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat[stat.rindex(b")") + 2 :][:1].decode("ascii")
