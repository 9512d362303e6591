"""All command words of the daemon and what carries each out."""

from __future__ import annotations

from typing import Final

from fungistor.zdb.daemon.admin import ADMIN_COMMANDS as _OWN_ADMIN_COMMANDS
from fungistor.zdb.daemon.admin import NAMESPACE_COMMANDS
from fungistor.zdb.daemon.commands import KEY_COMMANDS, Handler
from fungistor.zdb.daemon.walks import RAW_COMMANDS, WALK_COMMANDS

ADMIN_COMMANDS: Final[dict[bytes, Handler]] = {**_OWN_ADMIN_COMMANDS, **RAW_COMMANDS}
COMMANDS: Final[dict[bytes, Handler]] = {**KEY_COMMANDS, **NAMESPACE_COMMANDS, **WALK_COMMANDS, **ADMIN_COMMANDS}
