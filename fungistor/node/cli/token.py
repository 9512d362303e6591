"""token add, list, revoke: what lets others act for a tenant."""

from __future__ import annotations

import argparse
import os

from fungistor.catalog.tenants import TokenScope
from fungistor.errors import FailedError, InvalidError
from fungistor.node.cli.output import Output
from fungistor.node.cli.rights import acting_of
from fungistor.node.cli.tenant import tenancy_of
from fungistor.node.scope_words import parse_scopes

_HEAD = ("ID", "SCOPES", "ADDED", "EXPIRES", "EXPIRED", "LABEL")
_COLUMNS = ("id", "scopes", "added:time", "expires:time", "expired", "label")


def add(arguments: argparse.Namespace, output: Output) -> int:
    """Issue a token: its text is written once, here, and kept nowhere."""
    acting = acting_of(arguments)
    scopes = parse_scopes(arguments.scopes, TokenScope)
    file = None if arguments.output is None else _new_file(arguments.output)
    try:
        with tenancy_of(arguments, writes=True) as (tenancy, catalog, keys):
            line, text = tenancy.add_token(acting.tenant(catalog, keys), scopes, arguments.label, arguments.expires)
        if file is not None:
            os.write(file, f"{text}\n".encode())
            os.fsync(file)
    except BaseException:
        if file is not None:
            os.unlink(arguments.output)
        raise
    finally:
        if file is not None:
            os.close(file)
    if output.as_json:
        shown = {"token": text} if file is None else {"file": os.path.abspath(arguments.output)}
        output.json_line({**line.to_json(), **shown})
        return 0
    if file is None:
        output.line(text)
        output.note("it is shown once: nobody can look it up again")
    else:
        output.line(f"{arguments.output} holds token {line.token.id.hex()}")
    return 0


def listed(arguments: argparse.Namespace, output: Output) -> int:
    acting = acting_of(arguments)
    with tenancy_of(arguments) as (tenancy, catalog, keys):
        output.rows(tenancy.tokens(acting.tenant(catalog, keys)), _HEAD, _COLUMNS)
    return 0


def revoke(arguments: argparse.Namespace, output: Output) -> int:
    acting = acting_of(arguments)
    with tenancy_of(arguments, writes=True) as (tenancy, catalog, keys):
        line = tenancy.revoke_token(acting.tenant(catalog, keys), arguments.id, dry_run=arguments.dry_run)
    if output.as_json:
        output.json_line({**line.to_json(), "revoked": not arguments.dry_run, "dry_run": arguments.dry_run})
    else:
        would = "would be" if arguments.dry_run else "is"
        output.line(f"token {line.token.id.hex()} {would} revoked")
    return 0


def _new_file(path: str) -> int:
    """Opened before the token is drawn: one that cannot be written down must not be."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise InvalidError(f"{path} is there already", hint="give another name, or move it away") from error
    except OSError as error:
        raise FailedError(f"{path} cannot be written: {(error.strerror or '').lower()}") from error
