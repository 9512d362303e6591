"""From a request for content to its answer, in the order in which other gateways decide.

`preflight` looks at the request alone and runs on the loop; `answer` asks the content and runs in a worker thread.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass

from fungistor.dag.cid import CBOR, CID, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW
from fungistor.dag.reader import describe
from fungistor.dag.source import BlockSource
from fungistor.dag.walk import InsideBlockError, resolve
from fungistor.errors import InvalidError, NotFoundError
from fungistor.names.key import is_canonical, name_text, parse_key
from gateway import headers, paths, site_rules
from gateway.backend import Content
from gateway.errors import RefusedError
from gateway.formats import directory, file, ipns_record, raw, symlink
from gateway.formats.target import Target
from gateway.names import Lifetime, Names
from gateway.negotiation import Choice, Format, negotiate
from gateway.paths import ContentPath
from gateway.requests import Answer, Request, redirect
from gateway.sources import NoBlocks, RememberingSource

_UNIXFS_CODECS = frozenset((RAW, DAG_PB))
_DOCUMENT_CODECS = {DAG_CBOR: "dag-cbor", DAG_JSON: "dag-json", CBOR: "cbor", JSON: "json"}
_SERVED_AS_FILE = frozenset((Format.DEFAULT, Format.JSON, Format.CBOR))
_TRUSTLESS = frozenset((Format.RAW, Format.CAR, Format.IPNS_RECORD))
_SUPERFLUOUS = re.compile(rb"^/ipfs/+(?=(?:ipfs|ipns)/)")
_WORKER_SCOPE = re.compile(rb"^/ip[fn]s/[^/]+$")
_CONTENT_URI = re.compile(r"^(?:(ipfs|ipns)://|/?(ipfs|ipns)/)(.+)$", re.IGNORECASE)


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
    if request.mount.is_trustless and choice.format not in _TRUSTLESS:
        raise RefusedError(
            406,
            "this Host gives only what can be verified: blocks, CARs and IPNS records",
            hint="add ?format=raw, ?format=car or ?format=ipns-record",
        )
    if choice.format is Format.IPNS_RECORD:
        if path.namespace != "ipns" or path.segments:
            raise RefusedError(400, "only a name itself has a record", hint="ask for /ipns/KEY?format=ipns-record")
        return Wanted(path, choice)
    if choice.format not in _SERVED_AS_FILE and choice.format is not Format.RAW:
        raise RefusedError(
            501, f"format {choice.format.value!r} is not available yet", hint="?format=raw and ordinary answers are"
        )
    return Wanted(path, choice)


def answer(request: Request, wanted: Wanted, content: Content, names: Names, stack: ExitStack) -> Answer:
    """Answer from the content. What must outlive this call, until the body is sent, is entered into `stack`."""
    request.phase = "resolve"
    if wanted.choice.format is Format.IPNS_RECORD:
        return ipns_record.answer(request, wanted.path, names)
    root, site, lifetime = _root_of(wanted.path, names)
    try:
        source = RememberingSource(_open(content, root, stack))
        walked = _Walked(root, site, lifetime, wanted.choice)
        made = _answer_site(request, wanted.path, walked, source)
    except NotFoundError as error:
        if request.is_only_if_cached:
            raise RefusedError(412, f"not held here: {error.message}") from error
        raise
    except InsideBlockError as error:
        raise RefusedError(501, error.message, hint=error.hint) from error
    source.settle()
    return made


@dataclass(frozen=True, slots=True)
class _Walked:
    """Where a path starts: a root, the path below it that a name stands for, and for how long that holds."""

    root: CID
    site: tuple[bytes, ...]
    lifetime: Lifetime | None
    choice: Choice


def _root_of(path: ContentPath, names: Names) -> tuple[CID, tuple[bytes, ...], Lifetime | None]:
    if path.namespace == "ipfs":
        return CID.parse(path.root), (), None
    resolved = names.resolve(path.root)
    return resolved.root, resolved.segments, Lifetime(resolved.ttl_s)


def _answer_site(request: Request, path: ContentPath, walked: _Walked, source: BlockSource) -> Answer:
    """Answer with what stands at the path, or with what the site's `_redirects` has in its place."""
    try:
        return _answer_path(request, path, walked, source)
    except NotFoundError:
        if not request.mount.is_isolated or walked.choice.format is not Format.DEFAULT:
            raise
        instead = site_rules.decide(request, source, walked.root, walked.site, path.segments)
        if instead is None:
            raise
    if isinstance(instead, Answer):
        control = headers.IMMUTABLE
        instead.headers["Cache-Control"] = walked.lifetime.cache_control(control) if walked.lifetime else control
        return instead
    elsewhere = ContentPath(path.namespace, path.root, instead.segments, instead.is_slashed)
    return site_rules.page(instead, lambda: _answer_path(request, elsewhere, walked, source))


def _answer_path(request: Request, path: ContentPath, walked: _Walked, source: BlockSource) -> Answer:
    resolution = resolve(source, walked.root, (*walked.site, *path.segments))
    target = Target(path, resolution.cid, tuple(resolution.roots), walked.choice, walked.lifetime)
    return _answer_target(request, target, source)


def _answer_target(request: Request, target: Target, source: BlockSource) -> Answer:
    if target.choice.format is Format.RAW:
        return raw.answer(request, target, source)
    _require_unixfs(target.cid)
    request.phase = "describe"
    info = describe(source, target.cid)
    if info.type == "directory":
        return directory.answer(request, target, source)
    if info.type == "symlink":
        return symlink.answer(request, target, info)
    return file.answer(request, target, source, info)


def _require_unixfs(cid: CID) -> None:
    if cid.codec in _UNIXFS_CODECS:
        return
    name = _DOCUMENT_CODECS.get(cid.codec)
    if name is not None:
        raise RefusedError(501, f"{name} documents are not available yet", hint="?format=raw gives the block itself")
    raise RefusedError(
        406, f"blocks of codec 0x{cid.codec:x} have no form but their own", hint="?format=raw gives the block itself"
    )


def _open(content: Content, root: CID, stack: ExitStack) -> BlockSource:
    if root.is_identity and root.codec == RAW:
        return NoBlocks()
    try:
        return stack.enter_context(content.open(root))
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
