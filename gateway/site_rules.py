"""Applies a website's `_redirects`, where a path of it leads nowhere. Runs in a worker thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fungistor.dag.cid import CID
from fungistor.dag.reader import describe, read_file
from fungistor.dag.source import BlockSource
from fungistor.dag.walk import resolve
from fungistor.errors import InvalidError, NotFoundError
from gateway import paths, redirects_file
from gateway.errors import RefusedError
from gateway.requests import Answer, Request, redirect


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Another path of the same site whose file is the answer."""

    segments: tuple[bytes, ...]
    is_slashed: bool
    status: int


def decide(
    request: Request, source: BlockSource, root: CID, site: tuple[bytes, ...], segments: tuple[bytes, ...]
) -> Answer | Rewrite | None:
    """Say what the site has in place of a path that it lacks; None where it has no say.

    `site` is the path from `root` to the top of the site, `segments` the rest.

    Raises: RefusedError (500), as the specification has it for a file that is no good.
    """
    rules = _rules(source, root, site)
    if rules is None:
        return None
    outcome = redirects_file.evaluate(rules, segments)
    if outcome is None:
        return None
    if outcome.status in redirects_file.REDIRECTS:
        return redirect(outcome.location(request.query_string), outcome.status)
    names, is_slashed = _names_of(outcome.path)
    return Rewrite(names, is_slashed, outcome.status)


def page(rewrite: Rewrite, make: Callable[[], Answer]) -> Answer:
    """Make the answer of a rewrite: the file itself, or with 404, 410 and 451 the same bytes under that status."""
    made = make()
    if rewrite.status == redirects_file.REWRITE or made.status == 304:
        return made
    if made.status != 200:
        raise RefusedError(500, "could not parse _redirects: the page of an error leads to no file")
    made.status = rewrite.status
    return made


def _rules(source: BlockSource, root: CID, site: tuple[bytes, ...]) -> tuple[redirects_file.Rule, ...] | None:
    try:
        cid = resolve(source, root, (*site, redirects_file.NAME)).cid
        info = describe(source, cid)
    except NotFoundError:
        return None
    if info.type != "file":
        raise _bad(f"it is a {info.type}")
    if info.size > redirects_file.FILE_BYTES_MAX:
        raise _bad(f"redirects file size cannot exceed {redirects_file.FILE_BYTES_MAX} bytes, it has {info.size}")
    content = b"".join(bytes(part) for part in read_file(source, cid, 0, info.size))
    try:
        return redirects_file.parse(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise _bad("it is no UTF-8 text") from None
    except InvalidError as error:
        raise _bad(error.message) from error


def _names_of(path: str) -> tuple[tuple[bytes, ...], bool]:
    try:
        return paths.split_names(path.encode())
    except InvalidError as error:
        raise _bad(f"{path[:80]!r}: {error.message}") from error


def _bad(why: str) -> RefusedError:
    return RefusedError(500, f"could not parse _redirects: {why}", hint="who publishes this site can mend the file")
