"""The lists at work: before a path is looked at, and before any block is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from fungistor.dag.cid import CID
from fungistor.dag.source import BlockSource
from fungistor.objects.access import Reader
from gateway.backend import Content
from gateway.denylist.parsing import Rule
from gateway.denylist.rules import Rules
from gateway.errors import RefusedError
from gateway.headers import NO_STORE
from gateway.paths import ContentPath

_exempt: ContextVar[bytes | None] = ContextVar("gateway_denylist_exempt", default=None)
"""The multihash of a root below which a path is explicitly allowed: its own rules have been asked already."""


_rules: ContextVar[Rules | None] = ContextVar("gateway_denylist_rules", default=None)


def refusal(rule: Rule) -> RefusedError:
    """What a client is told. Which rule and which list is the operator's to know, not the client's."""
    return RefusedError(
        rule.status,
        "this content is blocked here and cannot be provided",
        hint="the operator of this gateway decided so; other gateways may decide otherwise",
        headers={"Cache-Control": NO_STORE},
    )


def check_path(rules: Rules, path: ContentPath) -> None:
    """Raise RefusedError where a rule forbids the path. What an explicit rule allows is let through to its root."""
    _rules.set(rules)
    rule = rules.of_path(path.namespace, path.root, path.segments) if rules else None
    allowed = rule is not None and rule.allows and path.namespace == "ipfs"
    _exempt.set(CID.parse(path.root).multihash if allowed else None)
    if rule is not None and not rule.allows:
        raise refusal(rule)


def check_resolved(root: CID, segments: tuple[bytes, ...]) -> None:
    """Ask once more for what a name stands for. Runs in the request's own thread or task, after `check_path`."""
    rules = _rules.get()
    if rules:
        check_path(rules, ContentPath("ipfs", str(root), segments, False))


class GuardedContent:
    """Content without what the rules forbid: no blocked block is asked for, wherever it stands in a DAG."""

    def __init__(self, content: Content, rules: Callable[[], Rules]) -> None:
        self._content = content
        self._rules = rules

    @contextmanager
    def open(self, root: CID, reader: Reader | None = None) -> Iterator[BlockSource]:
        """Open the blocks below `root`. Raises RefusedError, and as the content behind it."""
        rules = self._rules()
        if not rules:
            with self._content.open(root, reader) as source:
                yield source
            return
        exempt = _exempt.get()
        _check_block(rules, root, exempt)
        with self._content.open(root, reader) as source:
            yield _GuardedSource(source, rules, exempt)

    def hides(self, root: CID, reader: Reader | None = None) -> bool:
        """Pass it on."""
        return self._content.hides(root, reader)


class _GuardedSource:
    def __init__(self, source: BlockSource, rules: Rules, exempt: bytes | None) -> None:
        self._source = source
        self._rules = rules
        self._exempt = exempt

    def get(self, cid: CID) -> bytes:
        """Give a block that no rule forbids."""
        _check_block(self._rules, cid, self._exempt)
        return self._source.get(cid)

    def hint(self, cids: Sequence[CID]) -> None:
        """Pass on what will be asked for and may be."""
        self._source.hint([cid for cid in cids if not _is_blocked(self._rules, cid, self._exempt)])


def _is_blocked(rules: Rules, cid: CID, exempt: bytes | None) -> bool:
    rule = None if cid.multihash == exempt else rules.of_block(cid)
    return rule is not None and not rule.allows


def _check_block(rules: Rules, cid: CID, exempt: bytes | None) -> None:
    rule = None if cid.multihash == exempt else rules.of_block(cid)
    if rule is not None and not rule.allows:
        raise refusal(rule)
