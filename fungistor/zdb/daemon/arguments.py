"""The command line of one daemon: the original's flags, refused by name where they are not there yet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fungistor.errors import InvalidError
from fungistor.zdb.daemon.config import DATASIZE_MAX, DATASIZE_MIN, DaemonConfig

USAGE: Final = """usage: fungistor zdb [--data DIR] [--index DIR] [--listen ADDR] [--port N] [--socket PATH [--dualnet]]
  --admin PW      admin password; without it everybody is admin
  --protect       the default namespace is read-only without it
  --datasize N    bytes of a data file, suffix k, M or G (default 256M)
  --maxsize N     quota of the default namespace in bytes
  --mode M        user or seq: one mode for all namespaces (default: each its own)
  --sync          acknowledge a write when it is on disk
  --no-sync       never wait for the disk: for trials
  --hook FILE     a program told of files that fill, and asked for those missing
  --admin-http H:P  serve /metrics (OpenMetrics) and /health there
  --debug-commands  serve STOP and KSCAN, for tests
  --port-file F   write the port there when serving
"""

_VALUES: Final = frozenset(
    (
        "data",
        "index",
        "listen",
        "port",
        "socket",
        "admin",
        "datasize",
        "maxsize",
        "mode",
        "port-file",
        "hook",
        "admin-http",
    )
)
_SWITCHES: Final = frozenset(("dualnet", "protect", "sync", "no-sync", "verbose", "debug-commands"))
_LATER: Final = frozenset(("synctime", "secure", "rotate", "background", "logfile", "dump"))
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kMGT]?)")
_UNITS: Final = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_arguments(argv: Sequence[str]) -> DaemonConfig:
    """Return the configuration that a command line asks for.

    Raises:
        InvalidError: an option is unknown, malformed, or not available yet.
    """
    values, switches = _split(argv)
    sync, no_sync = "sync" in switches, "no-sync" in switches
    if sync and no_sync:
        raise InvalidError("--sync and --no-sync exclude each other")
    if "protect" in switches and not values.get("admin"):
        raise InvalidError("--protect needs --admin")
    defaults = DaemonConfig()
    config = DaemonConfig(
        data=values.get("data", defaults.data),
        index=values.get("index", defaults.index),
        listen=values.get("listen", defaults.listen),
        port=_whole(values, "port", defaults.port, 65535),
        socket=values.get("socket"),
        dualnet="dualnet" in switches,
        admin=values.get("admin"),
        protect="protect" in switches,
        sync=sync,
        no_sync=no_sync,
        mode=_mode(values.get("mode", defaults.mode)),
        datasize=_datasize(values["datasize"]) if "datasize" in values else defaults.datasize,
        maxsize=_whole(values, "maxsize", 0, (1 << 64) - 1),
        admin_http=values.get("admin-http"),
        hook=values.get("hook"),
        debug_commands="debug-commands" in switches,
        port_file=values.get("port-file"),
    )
    if config.data == config.index:
        raise InvalidError("--data and --index must be two folders")
    return config


def _split(argv: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """Return options with their values, and switches; one dash or two, `--a b` or `--a=b`."""
    values: dict[str, str] = {}
    switches: set[str] = set()
    words = iter(argv)
    for word in words:
        name, given, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name not in _VALUES | _SWITCHES | _LATER:
            raise InvalidError(f"unknown option {word}", hint="fungistor zdb --help")
        if name in _LATER:
            raise InvalidError(f"--{name} is not available yet")
        if name in _SWITCHES:
            switches.add(name)
            continue
        if not given:
            value = next(words, "")
            if not value:
                raise InvalidError(f"--{name} needs a value")
        values[name] = value
    return values, switches


def _whole(values: dict[str, str], name: str, default: int, largest: int) -> int:
    text = values.get(name)
    if text is None:
        return default
    if not text.isdecimal() or int(text) > largest:
        raise InvalidError(f"--{name} {text} is not a number up to {largest}")
    return int(text)


def _mode(text: str) -> str:
    if text == "direct":
        return "seq"
    if text not in ("mixed", "user", "seq"):
        raise InvalidError(f"--mode {text} is unknown: it is user or seq")
    return text


def _datasize(text: str) -> int:
    match = _SIZE.match(text)
    size = int(float(match[1]) * _UNITS[match[2]]) if match is not None else 0
    if not DATASIZE_MIN <= size <= DATASIZE_MAX:
        raise InvalidError(f"--datasize {text} is not between {DATASIZE_MIN} and {DATASIZE_MAX} bytes")
    return size
