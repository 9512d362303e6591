"""A home's keys: drawn by the first `up`, found by the later ones, and never drawn a second time for old data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from fungistor.errors import DeniedError, NotFoundError
from fungistor.ids import OWN_TENANT
from fungistor.keys.files import ROOT_KEY_VARIABLE, load_node_keys, load_root_key, make_root_key, save_node_keys
from fungistor.keys.issue import issue
from fungistor.keys.passphrase import Ask
from fungistor.keys.ring import NodeKeys, network_key_of
from fungistor.node.catalog_place import open_keys
from fungistor.node.config import load_config
from fungistor.node.home import Home
from fungistor.node.new_keys import refuse_half_rotated


def ensure_keys(
    home: Home,
    say: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
    prompt: Ask | None = None,
) -> NodeKeys:
    """Give this node's keys. A first `up` draws the root key, or takes it from FUNGISTOR_ROOT_KEY, and issues them.

    `say` is told once where the root key lies and to back it up; `prompt` asks a person for its passphrase.

    Raises: DeniedError where the keys of a home with a catalog are gone or those of another network; InvalidError
    where they are garbled; FailedError where they cannot be written.
    """
    environ = os.environ if environment is None else environment
    node_file, root_file = os.path.join(home.keys, "node.key"), os.path.join(home.keys, "root.key")
    given = ROOT_KEY_VARIABLE in environ
    refuse_half_rotated(home)
    try:
        keys = load_node_keys(node_file)
    except NotFoundError:
        pass
    else:
        if given:
            keys.check_root(load_root_key(root_file, environ))
        return keys
    try:
        root = load_root_key(root_file, environ, prompt)
    except NotFoundError:
        if home.has_catalog:
            raise DeniedError(
                f"the keys in {home.keys} are gone, and without them nothing in this home can be read",
                hint=f"restore root.key from your backup, or set {ROOT_KEY_VARIABLE}",
            ) from None
        root = make_root_key(root_file)
    table = open_keys(home, load_config(home), network_key_of(root))
    try:
        # Who has the root key holds every tenant that there is.
        keys = issue(root, table, sorted({OWN_TENANT, *table.tenants()}))
    finally:
        table.close()
    save_node_keys(node_file, keys)
    if not given:
        say(f"back up {root_file}, away from this machine: without it, what is lost with this folder stays lost")
    return keys
