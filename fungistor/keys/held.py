"""The tenants' keys of a node, as its key file has them now: a tenant that is added needs no restart."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from fungistor.errors import FungiStorError
from fungistor.ids import TenantNumber
from fungistor.keys.files import load_node_keys
from fungistor.keys.ring import NodeKeys


class HeldTenants(Mapping[TenantNumber, bytes]):
    """Tenants' keys. The file is read again when a tenant is asked for that was not in it, and it has changed since.

    Keys that are here stay as they are: they change only while the network stands still.
    """

    def __init__(self, path: str, keys: Mapping[TenantNumber, bytes]) -> None:
        self._path = path
        self._keys = dict(keys)
        self._stamp = self._look()

    def __getitem__(self, tenant: TenantNumber) -> bytes:
        if tenant not in self._keys:
            self._read_again()
        return self._keys[tenant]

    def __iter__(self) -> Iterator[TenantNumber]:
        self._read_again()
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"HeldTenants({sorted(self._keys)})"

    def _read_again(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        try:
            read = load_node_keys(self._path)
        except FungiStorError:
            return  # what was read before still holds; the next `up` tells what is wrong with the file
        self._stamp = stamp
        self._keys = {**read.tenant_keys, **self._keys}

    def _look(self) -> tuple[int, ...]:
        try:
            status = os.stat(self._path)
        except OSError:
            return ()
        return (status.st_ino, status.st_size, status.st_mtime_ns)


def held_node_keys(path: str) -> NodeKeys:
    """A node's keys, with its tenants' as the file comes to have them. Raises as `load_node_keys`."""
    keys = load_node_keys(path)
    return NodeKeys(keys.network_key, HeldTenants(path, keys.tenant_keys), keys.signing_key, keys.root_fingerprint)
