"""For whom a command line acts, and what the bearer of a token may do by one: what is not listed is the operator's."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from fungistor.errors import DeniedError
from fungistor.node.given_token import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, given_token, is_token_given

if TYPE_CHECKING:
    from fungistor.node.acting import Acting

SCOPE_OF = {
    "content:publish": "publish",
    "car:load": "publish",
    "content:get": "read",
    "content:cat": "read",
    "content:ls": "read",
    "content:stat": "read",
    "car:export": "read",
    "network:objects": "read",
    "network:verify": "read",
    "removal:pins": "read",
    "name:names": "read",
    "name:history": "read",
    "log:log": "read",
    "tenant:show": "read",
    "link:link": "read",
    "removal:unpublish": "unpublish",
    "removal:pin": "unpublish",
    "removal:lock": "unpublish",
    "name:publish": "names",
    "name:rollback": "names",
    "name:remove": "names",
    "token:add": "admin",
    "token:listed": "admin",
    "token:revoke": "admin",
    "tenant:revoke_links": "admin",
}
FREE = frozenset(("other:version", "other:zdb", "gateway:check"))
"""These look at no network."""


def refuse_with_token(handler: str) -> None:
    """Keep bearers of tokens from what is the operator's.

    Raises: DeniedError.
    """
    if is_token_given(os.environ) and handler not in SCOPE_OF and handler not in FREE:
        raise DeniedError(
            "this command is for the operator of the network, not for the bearer of a token",
            hint=f"unset {TOKEN_VARIABLE} and {TOKEN_FILE_VARIABLE}, if you have the home",
        )


def acting_of(arguments: argparse.Namespace) -> Acting:
    """For whom these arguments act. Raises: InvalidError, DeniedError: the token's file cannot be used."""
    from fungistor.catalog.tenants import TokenScope  # here, as most of a command line's errors need none of it
    from fungistor.node.acting import Acting

    scope = TokenScope[SCOPE_OF[arguments.handler].upper()]
    return Acting(getattr(arguments, "tenant", None), scope, given_token(os.environ))
