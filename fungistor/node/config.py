"""`config.toml` of a home: the few choices that outlive one run."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields

import tomli_w

from fungistor.errors import InvalidError
from fungistor.node.files import read_bounded, write_atomic
from fungistor.node.home import Home

CONFIG_BYTES_MAX = 64 << 10
GATEWAY_WORKERS_MAX = 64


@dataclass(frozen=True, slots=True)
class Config:
    """What `up` starts with where its options say nothing."""

    gateway: str = "127.0.0.1:8480"
    gateway_workers: int = 2


def load_config(home: Home) -> Config:
    """Read a home's choices; the defaults where there is no file.

    Raises: InvalidError naming the line or the key.
    """
    path = home.config_file
    try:
        content = read_bounded(path, CONFIG_BYTES_MAX)
    except FileNotFoundError:
        return Config()
    if content is None:
        raise InvalidError(f"{path} is longer than {CONFIG_BYTES_MAX} bytes", hint="it should be a few lines")
    try:
        table = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidError(f"{path} is no TOML: {error}", hint="mend the line, or delete the file") from error
    known = {field.name for field in fields(Config)}
    for key in table:
        if key not in known:
            raise InvalidError(f"{path}: unknown key {key!r}", hint=f"known are {', '.join(sorted(known))}")
    gateway = table.get("gateway", Config().gateway)
    workers = table.get("gateway_workers", Config().gateway_workers)
    if not isinstance(gateway, str):
        raise InvalidError(f"{path}: gateway is not text", hint='write it as "HOST:PORT"')
    if type(workers) is not int or not 1 <= workers <= GATEWAY_WORKERS_MAX:
        raise InvalidError(f"{path}: gateway_workers is not a number from 1 to {GATEWAY_WORKERS_MAX}")
    return Config(gateway=gateway, gateway_workers=workers)


def save_config(home: Home, config: Config) -> None:
    """Write a home's choices.

    Raises: OSError.
    """
    table = {"gateway": config.gateway, "gateway_workers": config.gateway_workers}
    write_atomic(home.config_file, tomli_w.dumps(table).encode())
