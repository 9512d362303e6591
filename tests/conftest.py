"""What holds for every test."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in its background has them ignore Ctrl-C, and all that they start would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
