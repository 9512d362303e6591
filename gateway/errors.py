"""From errors to statuses: one function, and the three forms in which an error is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from fungistor.errors import (
    ConflictError,
    CorruptError,
    DeniedError,
    FungiStorError,
    InvalidError,
    NotEnoughShardsError,
    NotFoundError,
    UnavailableError,
)
from fungistor.names.errors import NameFailedError, NameTimeoutError


class RefusedError(InvalidError):
    """The gateway itself refuses, with a status of its own choice."""

    def __init__(self, status: int, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.headers = dict(headers or {})


class FirstByteTimeoutError(UnavailableError):
    """The deadline of the first byte passed; what the request was waiting for is in the message."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as it is told to a client."""

    status: int
    kind: str
    detail: str
    hint: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


_KINDS = {
    400: "invalid",
    404: "not_found",
    405: "method_not_allowed",
    401: "unauthorized",
    403: "denied",
    406: "not_acceptable",
    410: "blocked",
    412: "not_cached",
    416: "range_not_satisfiable",
    422: "unprocessable",
    429: "busy",
    500: "failed",
    451: "blocked",
    501: "not_available_yet",
    503: "unavailable",
    504: "timeout",
}


def problem_of(error: Exception) -> Problem:
    """Map an error to its status. What is not one of our families is a bug: 500, and nothing of it is shown."""
    if isinstance(error, RefusedError):
        return Problem(error.status, _KINDS.get(error.status, "refused"), error.message, error.hint, error.headers)
    if not isinstance(error, FungiStorError):
        return Problem(500, "failed", "the gateway met an error of its own", "its log has the request id")
    status = _status_of(error)
    headers = {"Retry-After": str(max(1, error.retry_after_s))} if isinstance(error, UnavailableError) else {}
    return Problem(status, "timeout" if status == 504 else error.kind, error.message, error.hint, headers)


def _status_of(error: FungiStorError) -> int:
    match error:
        case NotFoundError():
            return 404
        case NameTimeoutError() | FirstByteTimeoutError() | NotEnoughShardsError(silent=True):
            return 504
        case NameFailedError():
            return 502
        case UnavailableError() | ConflictError():
            return 503
        case DeniedError():
            return 403
        case CorruptError():
            return 502  # what lies behind this gateway gave bytes that prove wrong; they are never served
        case InvalidError():
            return 400
        case _:
            return 500


def as_json(problem: Problem, phase: str, request_id: str) -> bytes:
    """Render for programs: the four keys of the contract, and the hint where there is one."""
    told = {"error": problem.kind, "phase": phase, "detail": problem.detail, "request_id": request_id}
    if problem.hint:
        told["hint"] = problem.hint
    return (json.dumps(told, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def as_text(problem: Problem, phase: str, request_id: str) -> bytes:
    """Render for a person at a terminal."""
    lines = [f"{problem.status} {phrase(problem.status)}: {problem.detail}"]
    if problem.hint:
        lines.append(f"hint: {problem.hint}")
    lines.append(f"(phase {phase}, request {request_id})")
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def phrase(status: int) -> str:
    """Return the standard reason phrase."""
    return HTTPStatus(status).phrase
