"""The command line of one daemon: the original's flags with its meanings, and ours.

What is wrong is refused by name and place; a word that may be a password is never repeated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final

from fungistor.errors import FailedError, InvalidError
from fungistor.zdb.daemon.config import DATASIZE_MAX, DATASIZE_MIN, DaemonConfig

USAGE: Final = """usage: fungistor zdb [--data DIR] [--index DIR] [--listen ADDR] [--port N] [--socket PATH [--dualnet]]
       fungistor zdb check|compact|rebuild-index|dump --data DIR --index DIR [--json]

files
  --data DIR, --index DIR   ./zdb-data and ./zdb-index; made if they are not there
  --datasize N       bytes of a data file, suffix k, M, G or T (default 256M)
  --maxsize N        quota of the default namespace in bytes
  --mode M           user or seq: one mode for all namespaces (default: each its own)
  --rotate S         begin new files in namespaces written to, every S seconds
  --sync             acknowledge a write when it is on disk
  --synctime S       leave nothing acknowledged off the disk for longer than S seconds
  --secure           flush a file when the next one begins
  --no-sync          never wait for the disk: for trials
network
  --listen ADDR      default 127.0.0.1; :: is every address
  --port N           default 9900; 0 is any free port
  --socket PATH      a unix socket, in place of TCP unless --dualnet
  --tls-port N       TLS as well, with --tls-cert FILE and --tls-key FILE; --tls-only: no plain TCP
  --tls-ca FILE      clients must show a certificate signed by one in there
  --max-connections N, --max-unsent N (bytes, default 512M), --idle-timeout S, --greeting-timeout S
rights
  --admin PW         admin password; without it everybody is admin. --admin-file F: its first line
  --protect          the default namespace is read-only without it
operation
  --hook FILE        a program told of files that fill, and asked for those missing; --hook-timeout S
  --admin-http H:P   serve /metrics (OpenMetrics), /health and /ready there
  --background       return when requests are served
  --logfile F        log there, opened again on SIGHUP; --log-format json or text; --verbose
  --port-file F      write the port there when serving
  --dump             list live keys and end
  --debug-commands   serve STOP and KSCAN, for tests
  --version, --help
"""

_ORIGINAL_VALUES: Final = frozenset(
    ("data", "index", "listen", "port", "socket", "synctime", "mode", "logfile", "admin", "hook", "datasize",
     "maxsize", "rotate")
)  # fmt: skip
_ORIGINAL_SWITCHES: Final = frozenset(
    ("dualnet", "verbose", "sync", "dump", "background", "protect", "secure", "version", "help")
)
_VALUES: Final = _ORIGINAL_VALUES | frozenset(
    ("port-file", "admin-http", "admin-file", "tls-port", "tls-cert", "tls-key", "tls-ca", "hook-timeout",
     "max-connections", "max-unsent", "idle-timeout", "greeting-timeout", "log-format")
)  # fmt: skip
_SWITCHES: Final = _ORIGINAL_SWITCHES | frozenset(("no-sync", "debug-commands", "tls-only"))
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kMGT]?)")
_UNITS: Final = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_FORMATS: Final = {"json": True, "text": False}
_SECONDS_MAX: Final = 1 << 31
_PASSWORD_BYTES_MAX: Final = 128
_PASSWORD_FILE_BYTES_MAX: Final = 4096
_HELP: Final = "fungistor zdb --help"


def parse_arguments(argv: Sequence[str]) -> DaemonConfig:
    """Return the configuration that a command line asks for.

    Raises:
        InvalidError: an option is unknown or malformed, or does not go with another.
        FailedError: a file that one names cannot be read.
    """
    values, switches = _split(argv)
    defaults = DaemonConfig()
    config = DaemonConfig(
        data=values.get("data", defaults.data),
        index=values.get("index", defaults.index),
        listen=values.get("listen", defaults.listen),
        port=_whole(values, "port", defaults.port, 65535),
        socket=values.get("socket"),
        dualnet="dualnet" in switches,
        tls_port=_whole(values, "tls-port", 0, 65535) if "tls-port" in values else None,
        tls_only="tls-only" in switches,
        tls_cert=values.get("tls-cert"),
        tls_key=values.get("tls-key"),
        tls_ca=values.get("tls-ca"),
        admin=_password(values),
        protect="protect" in switches,
        sync="sync" in switches,
        synctime=_seconds(values, "synctime", 0),
        secure="secure" in switches,
        no_sync="no-sync" in switches,
        mode=_mode(values.get("mode", defaults.mode)),
        rotate=_seconds(values, "rotate", 0),
        datasize=_size(values, "datasize", DATASIZE_MIN, DATASIZE_MAX) if "datasize" in values else defaults.datasize,
        maxsize=_whole(values, "maxsize", 0, (1 << 64) - 1),
        admin_http=values.get("admin-http"),
        hook=values.get("hook"),
        hook_timeout=_seconds(values, "hook-timeout", defaults.hook_timeout),
        debug_commands="debug-commands" in switches,
        port_file=values.get("port-file"),
        max_connections=_whole(values, "max-connections", 0, 1 << 20),
        max_unsent=_size(values, "max-unsent", 1 << 20, 1 << 40) if "max-unsent" in values else defaults.max_unsent,
        idle_timeout=_seconds(values, "idle-timeout", 0),
        greeting_timeout=_seconds(values, "greeting-timeout", defaults.greeting_timeout),
        background="background" in switches,
        dump="dump" in switches,
        logfile=values.get("logfile"),
        log_json=_log_format(values.get("log-format")),
        verbose="verbose" in switches,
    )
    _check_together(config)
    return config


def _check_together(config: DaemonConfig) -> None:
    if config.sync and config.no_sync:
        raise InvalidError("--sync and --no-sync exclude each other")
    if config.no_sync and (config.synctime or config.secure):
        raise InvalidError("--no-sync excludes --synctime and --secure")
    if config.protect and not config.admin:
        raise InvalidError("--protect needs --admin")
    if os.path.realpath(config.data) == os.path.realpath(config.index):
        raise InvalidError("--data and --index must be two folders")
    if config.tls_port is None:
        given = [name for name in ("tls_cert", "tls_key", "tls_ca", "tls_only") if getattr(config, name)]
        if given:
            raise InvalidError(f"--{given[0].replace('_', '-')} needs --tls-port", hint="--tls-port 9901, for instance")
    elif config.tls_cert is None:
        raise InvalidError(
            "--tls-port needs --tls-cert", hint="a PEM file with the certificate; --tls-key with its key"
        )


def _split(argv: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """Return options with their values, and switches; one dash or two, `--a b` or `--a=b`."""
    values: dict[str, str] = {}
    switches: set[str] = set()
    words = enumerate(argv, 1)
    for place, word in words:
        if not word.startswith("-"):
            # It may be half of a password with a blank in it.
            raise InvalidError(f"word {place} after `zdb` is no option, and what it means is unknown", hint=_HELP)
        said, given, value = word.lstrip("-").partition("=")
        name = _full_name(said)
        if name in _SWITCHES:
            if given:
                raise InvalidError(f"--{name} takes no value")
            switches.add(name)
            continue
        if not given:
            _, value = next(words, (0, ""))
        if not value:
            raise InvalidError(f"--{name} needs a value")
        values[name] = value
    return values, switches


def _full_name(said: str) -> str:
    """Return the option that is meant; the original's may be cut as long as it can only be one of them."""
    if said in _VALUES or said in _SWITCHES:
        return said
    meant = sorted(name for name in _ORIGINAL_VALUES | _ORIGINAL_SWITCHES if said and name.startswith(said))
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise InvalidError(f"--{said} may be any of --{', --'.join(meant)}")
    raise InvalidError(f"unknown option --{said}", hint=_HELP)


def _password(values: dict[str, str]) -> str | None:
    path = values.get("admin-file")
    if path is None:
        password = values.get("admin")
    elif "admin" in values:
        raise InvalidError("--admin and --admin-file exclude each other")
    else:
        try:
            with open(path, "rb") as file:
                password = os.fsdecode(file.read(_PASSWORD_FILE_BYTES_MAX).split(b"\n", 1)[0].rstrip(b"\r"))
        except OSError as error:
            raise FailedError(f"cannot read --admin-file {path}: {error.strerror}") from error
        if not password:
            raise InvalidError(f"--admin-file {path} has nothing in its first line")
    if password is not None and len(os.fsencode(password)) > _PASSWORD_BYTES_MAX:
        raise InvalidError(f"the admin password is longer than {_PASSWORD_BYTES_MAX} bytes, which no AUTH could send")
    return password


def _seconds(values: dict[str, str], name: str, default: int) -> int:
    return _whole(values, name, default, _SECONDS_MAX)


def _whole(values: dict[str, str], name: str, default: int, largest: int) -> int:
    text = values.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 20 or int(text) > largest:
        raise InvalidError(f"--{name} {text[:40]} is not a whole number up to {largest}")
    return int(text)


def _log_format(text: str | None) -> bool | None:
    if text is not None and text not in _FORMATS:
        raise InvalidError(f"--log-format {text[:40]} is unknown: it is json or text")
    return None if text is None else _FORMATS[text]


def _mode(text: str) -> str:
    if text == "direct":
        return "seq"
    if text not in ("mixed", "user", "seq"):
        raise InvalidError(f"--mode {text[:40]} is unknown: it is user or seq")
    return text


def _size(values: dict[str, str], name: str, smallest: int, largest: int) -> int:
    text = values[name][:40]
    match = _SIZE.match(text)
    size = int(float(match[1]) * _UNITS[match[2]]) if match is not None else 0
    if not smallest <= size <= largest:
        raise InvalidError(f"--{name} {text} is not between {smallest} and {largest} bytes")
    return size
