"""The descriptor of a namespace as it is found on disk: whole, or cut and told from its copy, or lost."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import Final

from fungistor.errors import CorruptError
from fungistor.zdb.daemon.files import read_file
from fungistor.zdb.daemon.format import Checkpoint, Descriptor, decode_descriptor

DEFAULT: Final = b"default"
DESCRIPTOR_NAME: Final = "zdb-namespace"


def find_descriptor(
    name: bytes, index_path: str, checkpoint: Checkpoint | None, report: list[str], *, empty: bool
) -> tuple[Descriptor, bool]:
    """Return the namespace's properties, from the copy in the checkpoint where the file is cut, and whether the file
    has them."""
    path = f"{index_path}/{DESCRIPTOR_NAME}"
    data = read_file(path)
    if data is not None:
        try:
            descriptor = decode_descriptor(data)
            if descriptor.name == name:
                return descriptor, True
            report.append(f"descriptor names {os.fsdecode(descriptor.name)!r}")
        except CorruptError as error:
            report.append(str(error))
    return _lost_descriptor(name, data, checkpoint, report, empty=empty), False


def _lost_descriptor(
    name: bytes, data: bytes | None, checkpoint: Checkpoint | None, report: list[str], *, empty: bool
) -> Descriptor:
    with contextlib.suppress(CorruptError):
        if checkpoint is not None and (copy := decode_descriptor(checkpoint.descriptor)).name == name:
            report.append("properties taken from the copy in the checkpoint")
            return copy
    if name == DEFAULT or empty or (data is not None and len(data) > 5 and data[5] == 0):
        if data is not None:
            report.append("properties are lost and back at their defaults (it had no password)")
        return Descriptor(name)
    # Whether it had a password cannot be known any more: better closed than open to everybody.
    report.append("properties are lost: closed until an admin sets its password (NSSET)")
    return Descriptor(name, secrets.token_hex(16).encode(), public=False)
