"""Key files: made for their owner alone, whole and durable or not there at all, refused when others can read them.

`root.key` is text that a person can copy for a backup; `node.key` is JSON with a check over its fields. Both
formats are in docs/formats/keys.md. No message ever holds what a file holds.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from blake3 import blake3

from fungistor.errors import ConflictError, DeniedError, FailedError, InvalidError, NotFoundError
from fungistor.ids import TenantNumber
from fungistor.keys.passphrase import Ask, open_key, passphrase_from, seal_key
from fungistor.keys.ring import FINGERPRINT_BYTES, KEY_BYTES, ROOT_KEY_BYTES, NodeKeys, fingerprint

ROOT_KEY_VARIABLE: Final = "FUNGISTOR_ROOT_KEY"

KEY_FILE_BYTES_MAX: Final = 1 << 20
"""A node's file grows by 70 bytes a tenant; anything longer is not a key file."""

_ROOT_MARK = "fungistor-root-key 0"
_ROOT_MARK_SEALED = "fungistor-root-key 1"
_NODE_KIND = "fungistor-node-key"
_NODE_VERSION = 0
_MODE = 0o600
_TENANT_MAX = 2**32 - 1


def make_root_key(path: str) -> bytes:
    """Draw a root key and write it to `path`.

    Raises: ConflictError if there is a file already: a root key is never overwritten.
    """
    key = secrets.token_bytes(KEY_BYTES)
    _write(path, encode_root_key(key), replace=False)
    return key


def load_root_key(path: str, environ: Mapping[str, str], prompt: Ask | None = None) -> bytes:
    """The root key from FUNGISTOR_ROOT_KEY where that is set, else from the file, whose passphrase may be asked for.

    Raises: NotFoundError if there is neither; DeniedError if others can read the file, or its passphrase is wrong or
    nowhere to be had; InvalidError if it is garbled.
    """
    given = environ.get(ROOT_KEY_VARIABLE)
    if given:
        return _base64_key(given.strip(), ROOT_KEY_VARIABLE, (KEY_BYTES, ROOT_KEY_BYTES))
    return decode_root_key(_read(path), path, passphrase_from(environ, prompt))


def save_root_key(path: str, key: bytes, passphrase: bytes | None = None, *, replace: bool = True) -> None:
    """Write a root key, under a passphrase if one is given.

    Raises: ConflictError if there is a file already and `replace` is False.
    """
    _write(path, encode_root_key(key, passphrase), replace=replace)


def root_key_facts(path: str) -> tuple[str, bool]:
    """The fingerprint that a root key file states, and whether it is under a passphrase: known without opening it.

    Raises: as `load_root_key`.
    """
    lines = _root_lines(_read(path), path)
    return lines[-1].removeprefix("fingerprint "), lines[0] == _ROOT_MARK_SEALED


def save_node_keys(path: str, keys: NodeKeys) -> None:
    """Write a node's keys in place of those that are there."""
    _write(path, encode_node_keys(keys), replace=True)


def save_new_node_keys(path: str, keys: NodeKeys) -> None:
    """Write the keys of another node. Raises: ConflictError if there is a file already."""
    _write(path, encode_node_keys(keys), replace=False)


def load_node_keys(path: str) -> NodeKeys:
    """A node's keys.

    Raises: NotFoundError if there is no file; DeniedError if others can read it; InvalidError if it is garbled.
    """
    return decode_node_keys(_read(path), path)


def encode_root_key(key: bytes, passphrase: bytes | None = None) -> bytes:
    """The text of a root key file."""
    if passphrase is None:
        lines = [_ROOT_MARK, base64.b64encode(key).decode()]
    else:
        lines = [_ROOT_MARK_SEALED, *seal_key(key, passphrase)]
    return "\n".join([*lines, f"fingerprint {fingerprint(key)}", ""]).encode()


def decode_root_key(data: bytes, path: str, ask: Ask | None = None) -> bytes:
    """The key in a root key file's bytes; `ask` gives the passphrase where it is under one.

    Raises: InvalidError, which names `path`; DeniedError where it is another passphrase.
    """
    lines = _root_lines(data, path)
    if lines[0] == _ROOT_MARK:
        key = _base64_key(lines[1], path, (KEY_BYTES, ROOT_KEY_BYTES))
    else:
        key = open_key(lines[1], lines[2], (ask or passphrase_from({}, None))(path), path)
        if len(key) not in (KEY_BYTES, ROOT_KEY_BYTES):
            raise _garbled(path, f"a key in it has {len(key)} bytes")
    if lines[-1] != f"fingerprint {fingerprint(key)}":
        raise _garbled(path, "the key does not match its fingerprint")
    return key


def _root_lines(data: bytes, path: str) -> list[str]:
    lines = [line.strip() for line in data.decode("ascii", "replace").rstrip().split("\n")]
    wanted = {_ROOT_MARK: 3, _ROOT_MARK_SEALED: 4}.get(lines[0])
    if wanted is None:
        raise _garbled(path, f"its first line is not '{_ROOT_MARK}'")
    if len(lines) != wanted:
        raise _garbled(path, f"it does not have {'three' if wanted == 3 else 'four'} lines")
    return lines


def encode_node_keys(keys: NodeKeys) -> bytes:
    """The text of a node key file."""
    fields: dict[str, object] = {
        "kind": _NODE_KIND,
        "version": _NODE_VERSION,
        "root": keys.root_fingerprint,
        "network_key": base64.b64encode(keys.network_key).decode(),
        "signing_key": base64.b64encode(keys.signing_key).decode(),
        "tenant_keys": {
            str(tenant): base64.b64encode(key).decode() for tenant, key in sorted(keys.tenant_keys.items())
        },
    }
    return json.dumps(fields | {"check": _check(fields)}, indent=1).encode() + b"\n"


def decode_node_keys(data: bytes, path: str) -> NodeKeys:
    """The keys in a node key file's bytes. Raises: InvalidError, which names `path`."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _garbled(path, "it is not JSON") from error
    if not isinstance(fields, dict) or fields.get("kind") != _NODE_KIND:
        raise _garbled(path, f"it is not a {_NODE_KIND}")
    version = fields.get("version")
    if type(version) is not int:
        raise _garbled(path, "it has no version")
    if version != _NODE_VERSION:
        raise InvalidError(
            f"{path} is of version {version}, this program reads version {_NODE_VERSION}",
            hint="a newer fungistor wrote it: update this one",
        )
    check = fields.pop("check", None)
    if check != _check(fields):
        raise _garbled(path, "its fields do not match their check")
    tenants, root = fields.get("tenant_keys"), fields.get("root")
    if not isinstance(tenants, dict) or not isinstance(root, str) or len(root) != 2 * FINGERPRINT_BYTES:
        raise _garbled(path, "a field is missing")
    return NodeKeys(
        _base64_key(fields.get("network_key"), path),
        {_tenant(number, path): _base64_key(key, path) for number, key in tenants.items()},
        _base64_key(fields.get("signing_key"), path),
        root,
    )


def _tenant(text: str, path: str) -> TenantNumber:
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) > _TENANT_MAX:
        raise _garbled(path, "a tenant's number is out of bounds")
    return TenantNumber(int(text))


def _check(fields: Mapping[str, object]) -> str:
    """A digest that tells a slip of an editor from a key file; it is no defence against anyone."""
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    return blake3(canonical).hexdigest(FINGERPRINT_BYTES)


def _base64_key(text: object, where: str, lengths: tuple[int, ...] = (KEY_BYTES,)) -> bytes:
    try:
        key = base64.b64decode(text if isinstance(text, str) else "", validate=True)
    except (ValueError, binascii.Error) as error:
        raise _garbled(where, "a key in it is not base64") from error
    if len(key) not in lengths:
        raise _garbled(where, f"a key in it has {len(key)} bytes, not {KEY_BYTES}")
    return key


def _garbled(where: str, why: str) -> InvalidError:
    return InvalidError(f"{where} holds no usable key: {why}", hint="restore it from your backup")


def _read(path: str) -> bytes:
    with _errors_named(path):
        # Not through a link: who may place one here would choose the key.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _refuse_unless_private(path, os.fstat(descriptor).st_mode)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(KEY_FILE_BYTES_MAX + 1)
        finally:
            os.close(descriptor)
    if len(data) > KEY_FILE_BYTES_MAX:
        raise _garbled(path, f"it is longer than {KEY_FILE_BYTES_MAX} bytes")
    return data


def _refuse_unless_private(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise DeniedError(f"{path} is not a regular file", hint="put the key file itself there, not a link or device")
    if stat.S_IMODE(mode) & 0o077:
        raise DeniedError(
            f"{path} has mode {stat.S_IMODE(mode):04o}: others than its owner may use it",
            hint=f"chmod 600 {path}, and think about who may have read it",
        )


def _write(path: str, data: bytes, *, replace: bool) -> None:
    """Write aside, sync, and give it its name; the name is durable when this returns."""
    folder = os.path.dirname(os.path.abspath(path))
    aside = os.path.join(folder, f".{os.path.basename(path)}.{secrets.token_hex(8)}")
    with _errors_named(path):
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        try:
            try:
                os.fchmod(descriptor, _MODE)
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if replace:
                os.replace(aside, path)
            else:
                # A link fails where a rename would overwrite: of two first starts, one wins.
                os.link(aside, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(aside)
        _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _errors_named(path: str) -> Iterator[None]:
    """Map the system's refusals to ours, by what the caller does next."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no key file {path}", hint="the first `fungistor up` of a home makes it"
        ) from error
    except FileExistsError as error:
        raise ConflictError(f"{path} is there already", hint="a key file is never overwritten") from error
    except PermissionError as error:
        raise DeniedError(f"{path} cannot be used: {error.strerror}", hint="run as its owner") from error
    except OSError as error:
        raise FailedError(f"{path} cannot be used: {error.strerror}") from error
