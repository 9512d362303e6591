"""From a request for content to its answer, in the order in which other gateways decide.

`preflight` looks at the request alone and runs on the loop; `answer` asks the content and runs in a worker thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from fungistor.dag.cid import CID, RAW
from fungistor.dag.source import BlockSource
from fungistor.dag.walk import InsideBlockError
from fungistor.errors import InvalidError, NotFoundError
from fungistor.names.key import is_canonical, name_text, parse_key
from fungistor.objects.access import Reader
from gateway import headers, paths, site_rules, trustless
from gateway.backend import Content
from gateway.denylist import guard
from gateway.dispatch import Start, answer_path
from gateway.errors import RefusedError
from gateway.formats import ipns_record
from gateway.mounts import Standing
from gateway.names import Lifetime, Names
from gateway.negotiation import Choice, Format, negotiate
from gateway.paths import ContentPath
from gateway.requests import Answer, Request, redirect
from gateway.sources import NoBlocks, RememberingSource

_SUPERFLUOUS = re.compile(rb"^/ipfs/+(?=(?:ipfs|ipns)/)")
_WORKER_SCOPE = re.compile(rb"^/ip[fn]s/[^/]+$")
_CONTENT_URI = re.compile(r"^(?:(ipfs|ipns)://|/?(ipfs|ipns)/)(.+)$", re.IGNORECASE)


ALIAS_S = 60
"""For how long the way from a name to its key may be remembered: it changes only where the name is removed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that needs the content: a well-formed path, and the form it is wanted in."""

    path: ContentPath
    choice: Choice


def preflight(request: Request) -> Answer | Wanted:
    """Decide all that the request alone decides.

    Raises:
        InvalidError: a malformed path, and with a status of its own what cannot be given.
    """
    target = request.raw_path
    if target.rstrip(b"/") in (b"/ipfs", b"/ipns") and "uri" in request.query:
        return redirect(_path_of_uri(request.query["uri"]))
    if request.header("service-worker") == "script" and _WORKER_SCOPE.match(target):
        raise RefusedError(400, "a service worker may not be registered for the whole of a CID's or name's scope")
    if _SUPERFLUOUS.match(target):
        shortened = paths.parse(_SUPERFLUOUS.sub(b"/", target))
        return redirect(f"{shortened.text}{request.suffix}")
    path = paths.parse(target)
    if path.namespace == "ipns" and not request.mount.is_isolated:
        key = parse_key(path.root)
        if key is not None and not is_canonical(path.root):
            below = path.text.partition(path.root)[2]
            return redirect(f"/ipns/{name_text(key)}{below}{request.suffix}", 302)
    choice = negotiate(request.query.get("format"), request.accept)
    if request.mount.is_trustless:
        trustless.check(path, choice)
    if choice.format is Format.IPNS_RECORD and (path.namespace != "ipns" or path.segments):
        raise RefusedError(400, "only a name itself has a record", hint="ask for /ipns/KEY?format=ipns-record")
    return Wanted(path, choice)


def answer(request: Request, wanted: Wanted, content: Content, names: Names, stack: ExitStack) -> Answer:
    """Answer from the content. What must outlive this call, until the body is sent, is entered into `stack`."""
    made = _answer(request, wanted, content, names, stack)
    if request.reader is not None and request.reader.met_private:
        headers.keep_private(made.headers)
    return made


def _answer(request: Request, wanted: Wanted, content: Content, names: Names, stack: ExitStack) -> Answer:
    request.phase = "resolve"
    if (moved := _alias_redirect(request, wanted.path, names)) is not None:
        return moved
    if wanted.choice.format is Format.IPNS_RECORD:
        return ipns_record.answer(request, wanted.path, names, content)
    root, site, lifetime = _root_of(wanted.path, names)
    if lifetime is not None:
        guard.check_resolved(root, (*site, *wanted.path.segments))
    try:
        source = RememberingSource(_open(content, root, request.reader, stack))
        start = Start(root, site, lifetime, wanted.choice)
        give = partial(answer_path, request, start=start, source=source, stack=stack)
        made = _answer_site(request, wanted.path, start, source, give)
    except NotFoundError as error:
        if request.is_only_if_cached:
            raise RefusedError(412, f"not held here: {error.message}") from error
        raise
    except InsideBlockError as error:
        raise RefusedError(501, error.message, hint=error.hint) from error
    source.settle()
    return made


def _alias_redirect(request: Request, path: ContentPath, names: Names) -> Answer | None:
    """Send who asks for a name of the network's own to the key that it stands for, which has an origin of its own."""
    mount = request.mount
    if path.namespace != "ipns" or mount.standing is Standing.DNSLINK or "." in path.root:
        return None
    key = names.key_of_alias(path.root)
    if key is None:
        return None
    below = path.text.removeprefix(f"/ipns/{path.root}")
    if mount.standing is Standing.SUBDOMAIN:
        target = f"//{name_text(key)}.ipns.{mount.gateway}{below or '/'}"
    else:
        target = f"/ipns/{name_text(key)}{below}"
    moved = redirect(f"{target}{request.suffix}", 302)
    moved.headers["Cache-Control"] = f"public, max-age={ALIAS_S}"
    return moved


def _root_of(path: ContentPath, names: Names) -> tuple[CID, tuple[bytes, ...], Lifetime | None]:
    if path.namespace == "ipfs":
        return CID.parse(path.root), (), None
    resolved = names.resolve(path.root)
    return resolved.root, resolved.segments, Lifetime(resolved.ttl_s)


def _answer_site(
    request: Request, path: ContentPath, start: Start, source: BlockSource, give: Callable[[ContentPath], Answer]
) -> Answer:
    """Answer with what stands at the path, or with what the site's `_redirects` has in its place."""
    try:
        return give(path)
    except NotFoundError:
        if not request.mount.is_isolated or start.choice.format is not Format.DEFAULT:
            raise
        instead = site_rules.decide(request, source, start.root, start.site, path.segments)
        if instead is None:
            raise
    if isinstance(instead, Answer):
        control = headers.IMMUTABLE
        instead.headers["Cache-Control"] = start.lifetime.cache_control(control) if start.lifetime else control
        return instead
    elsewhere = ContentPath(path.namespace, path.root, instead.segments, instead.is_slashed)
    return site_rules.page(instead, lambda: give(elsewhere))


def _open(content: Content, root: CID, reader: Reader | None, stack: ExitStack) -> BlockSource:
    if root.is_identity and root.codec == RAW:
        return NoBlocks()
    try:
        return stack.enter_context(content.open(root, reader))
    except NotFoundError:
        if root.is_identity:
            return NoBlocks()
        raise


def _path_of_uri(uri: str) -> str:
    """Return the path of ``ipfs://CID/a``, ``/ipfs/CID/a`` or a bare CID, for ``?uri=``."""
    found = _CONTENT_URI.match(uri.strip())
    if found is None:
        try:
            return f"/ipfs/{CID.parse(uri.strip())}"
        except InvalidError:
            raise RefusedError(
                400, f"uri {uri[:60]!r} is neither ipfs:// nor ipns://", hint="write ipfs://CID/path"
            ) from None
    scheme = (found.group(1) or found.group(2)).lower()
    # What is after the first ? is a query of the content's own; a fragment never reaches a server.
    below, _, query = found.group(3).partition("#")[0].partition("?")
    path = paths.parse(f"/{scheme}/{below}".encode())
    return path.text + (f"?{_ascii(query)}" if query else "")


def _ascii(query: str) -> str:
    return "".join(char if "!" <= char <= "~" else paths.encode_segment(char.encode()) for char in query)
