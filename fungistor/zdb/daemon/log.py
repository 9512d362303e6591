"""What the daemon says: one JSON object a line for machines, text for a person. No secret is ever part of it.

Callers name the event (`area.what-happened`), say it in words, and add numbers and names as fields; what a client sent
is never one of them. The lines of asyncio and of uncaught errors take the same way.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from typing import Final

DEBUG: Final = logging.DEBUG
INFO: Final = logging.INFO
WARNING: Final = logging.WARNING
ERROR: Final = logging.ERROR

BURST_MAX: Final = 50
"""Lines of one event in a window; beyond, they are counted and not written, so that no client can fill a disk."""
BURST_WINDOW_S: Final = 10.0
_VALUE_CHARS_MAX: Final = 1024

Field = str | int | float | bool | None | list[str]

_LOGGER: Final = logging.getLogger("fungistor.zdb")


def say(level: int, event: str, text: str, **fields: Field) -> None:
    """Write one line, if the level is wanted."""
    _LOGGER.log(level, "%s", text, extra={"event": event, "fields": fields})


class LogSink(logging.Handler):
    """Writes lines to stderr, or to a file that can be opened again. A disk that refuses them harms nothing else."""

    def __init__(self, *, as_json: bool, path: str | None = None) -> None:
        """Open the file, if there is one.

        Raises:
            OSError: it cannot be written.
        """
        super().__init__()
        self._as_json = as_json
        self._path = path
        self._fd = -1 if path is None else _opened(path)
        self._owns_stderr = False
        self._bursts: dict[str, tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        event = str(getattr(record, "event", record.name))
        suppressed = self._suppressed(event, time.monotonic())
        if suppressed is None:
            return
        fields = dict(getattr(record, "fields", {}))
        if suppressed:
            fields["suppressed"] = suppressed
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)[-4 * _VALUE_CHARS_MAX :]
        line = self._line(record, event, {name: _short(name, value) for name, value in fields.items()})
        with contextlib.suppress(OSError, ValueError):
            if self._fd >= 0:
                os.write(self._fd, line.encode("utf-8", "backslashreplace"))
            else:
                sys.stderr.write(line)
                sys.stderr.flush()

    def reopen(self) -> None:
        """Go on in a new file of the same name, for who moves the old one away; the old one stays if that fails.

        Raises:
            OSError: it cannot be opened.
        """
        if self._path is None:
            return
        fd = _opened(self._path)
        os.close(self._fd)
        self._fd = fd
        if self._owns_stderr:
            self.take_stderr()

    def take_stderr(self) -> None:
        """Have all that anybody writes to stdout and stderr in the file, too: tracebacks of a crash, for instance."""
        if self._fd >= 0:
            os.dup2(self._fd, 1)
            os.dup2(self._fd, 2)
            self._owns_stderr = True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()

    def _suppressed(self, event: str, now: float) -> int | None:
        """Return how many lines of the event were left out before this one; None leaves it out, too."""
        began, count = self._bursts.get(event, (now, 0))
        left_out = 0
        if now - began >= BURST_WINDOW_S:
            left_out, began, count = max(count - BURST_MAX, 0), now, 0
        self._bursts[event] = began, count + 1
        return None if count >= BURST_MAX else left_out

    def _line(self, record: logging.LogRecord, event: str, fields: dict[str, Field]) -> str:
        text = record.getMessage()
        if self._as_json:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            head = {
                "time": f"{stamp}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "event": event,
                "message": text[:_VALUE_CHARS_MAX],
            }  # fmt: skip
            return json.dumps({**head, **fields}) + "\n"
        level = "" if record.levelno == INFO else f"{record.levelname.lower()}: "
        rest = " ".join(f"{name}={_printable(value)}" for name, value in fields.items())
        return f"zdb: {level}{_printable(text)}{f' [{rest}]' if rest else ''}\n"


def install(*, as_json: bool | None, verbose: bool, path: str | None = None) -> LogSink:
    """Make this process' log lines come out; `as_json` None: text where stderr is a terminal.

    Raises:
        OSError: the file cannot be written.
    """
    if as_json is None:
        as_json = path is not None or not sys.stderr.isatty()
    sink = LogSink(as_json=as_json, path=path)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, LogSink)]:
        root.removeHandler(handler)
        handler.close()
    root.addHandler(sink)
    _LOGGER.setLevel(DEBUG if verbose else INFO)
    return sink


def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _short(name: str, value: Field) -> Field:
    if isinstance(value, str) and name != "traceback":
        return value[:_VALUE_CHARS_MAX]
    return value


def _printable(value: Field) -> str:
    """Return a value on one line, without what a terminal would obey."""
    if isinstance(value, list):
        return ",".join(map(_printable, value))
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(value))
