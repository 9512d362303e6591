"""Every bound of the gateway, with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.limits import BLOCK_BYTES_MAX, KIB, MIB

STEP_BYTES = 1 * MIB
"""A worker thread brings about this much at a time."""

STEP_BYTES_MAX = STEP_BYTES + BLOCK_BYTES_MAX
"""A step one byte short takes one more block."""

LONG_STEP_BYTES_MAX = 4 * MIB + BLOCK_BYTES_MAX
"""A step for a client that takes the short ones at once, while the budget has plenty: a fifth less time a byte, most of
it wake-ups."""

PIECE_BYTES = 512 * KIB
"""The unit in which a slow reader's progress is judged."""


LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True, slots=True)
class Settings:
    """The gateway's bounds; the defaults suit one worker process."""

    threads_max: int = 32
    """Worker threads that fetch at the same time; further requests wait in line under their own deadline."""

    requests_max: int = 1024
    """Requests under way; the next one is told 429 rather than left to hang."""

    buffered_bytes_max: int = 32 * MIB
    """Bytes read and not yet taken by clients, all requests together."""

    look_ahead_steps: int = 1
    """Steps of a request that may wait behind the one being sent."""

    look_ahead_after_steps: int = 4
    """Steps that a client must have taken before any is read ahead for it: those who only ask cost one step each."""

    fast_step_s: float = 0.05
    """A client that takes its steps sooner than this is fast."""

    first_byte_s: float = 25.0
    """From the request to the status line; after it the client is told 504 and what was being waited for. Proxies and
    people give up at 30 s, and an answer is only worth something before that."""

    step_s: float = 25.0
    """Between two steps of a body; after it the connection is broken, since the status line is long out."""

    stall_s: float = 1.0
    """A client that takes a piece slower than this is stalled: what is held for it no longer counts against others."""

    stalled_bytes_max: int = 96 * MIB
    """Bytes held for stalled clients, all together; beyond it the client with most of them is cut off."""

    piece_s: float = 60.0
    """A client that does not take a piece within this is cut off: about 9 KiB/s is the slowest reader served."""

    head_bytes_max: int = 32 * KIB
    """Request line and header fields; more is 431."""

    sent_ahead_bytes_max: int = 64 * KIB
    """Of requests sent before the one in front of them was answered; a connection with more is reset."""

    head_s: float = 15.0
    """From the first byte of a request to its last, a body that nobody needs included."""

    keep_alive_s: int = 75
    """An idle connection is kept this long: longer than the 60 s that proxies keep theirs, so that they close first."""

    backlog: int = 2048

    drain_s: int = 10
    """How long answers under way may take to end after SIGTERM."""

    dns_s: float = 8.0
    """For DNS to say what an unknown Host is, the wait in line before it included."""

    access_log: bool = False

    trusted_proxies: tuple[str, ...] = LOOPBACK
    """Networks of proxies whose X-Forwarded-Host and X-Forwarded-Proto are believed."""

    def __post_init__(self) -> None:
        assert self.buffered_bytes_max >= 4 * STEP_BYTES_MAX, "the budget must hold a few steps"
