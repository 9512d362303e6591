"""Scopes as people write them: the names of flags, of nodes or of tokens, with commas."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from typing import TypeVar

from fungistor.errors import InvalidError

_Scopes = TypeVar("_Scopes", bound=IntFlag)


def scope_names(scopes: IntFlag) -> list[str]:
    """Scopes by their names."""
    return [name for name, scope in _by_name(type(scopes)).items() if scope & scopes]


def parse_scopes(text: str, kind: type[_Scopes]) -> _Scopes:
    """Scopes of a kind from names with commas. Raises: InvalidError."""
    known, scopes = _by_name(kind), kind(0)
    for name in text.split(","):
        if name not in known:
            raise InvalidError(f"{name[:40]!r} is no scope", hint=f"scopes are {', '.join(known)}")
        scopes |= known[name]
    return scopes


def _by_name(kind: type[_Scopes]) -> Mapping[str, _Scopes]:
    return {scope.name.lower(): scope for scope in kind if scope.name}
