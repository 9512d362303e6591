"""Rules of all lists, and the question put to them: may this be served? Of all that match, the last one decides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from blake3 import blake3

from fungistor.dag.cid import CID
from fungistor.dag.multibase import encode_base58
from gateway.denylist.parsing import SHA2_256, Rule, name_key
from gateway.paths import encode_segment

_HASHES: dict[int, Callable[[bytes], bytes]] = {
    SHA2_256: lambda data: hashlib.sha256(data).digest(),
    0x13: lambda data: hashlib.sha512(data).digest(),
    0x16: lambda data: hashlib.sha3_256(data).digest(),
    0x1E: lambda data: blake3(data).digest(),
    0xB220: lambda data: hashlib.blake2b(data, digest_size=32).digest(),
}
"""By multihash code: the functions in which double hashes may be written."""

Found = tuple[int, Rule]


class Rules:
    """Immutable once built. Thread-safe."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._by_key: dict[tuple[object, ...], list[Found]] = {}
        self._codes: set[int] = set()
        self.count = 0
        for number, rule in enumerate(rules):
            self.count += 1
            for key in rule.keys:
                self._by_key.setdefault(key, []).append((number, rule))
                if key[0] == "hash":
                    self._codes.add(key[1])  # type: ignore[arg-type]  # ("hash", code, digest)

    def __bool__(self) -> bool:
        return self.count > 0

    def of_path(self, namespace: str, root: str, segments: tuple[bytes, ...]) -> Rule | None:
        """The rule that decides about ``/namespace/root/segments``, None where there is none."""
        path = b"/".join(segments)
        if namespace == "ipns":
            key = name_key(root)
            return _last([*self._found(("ipns", key), path), *self._hashed(_name_texts(root, key, path))])
        cid = CID.parse(root)
        texts = [] if not self._codes else _path_texts(cid, segments)
        return _last([*self._found(("ipfs", cid.multihash), path), *self._hashed(texts)])

    def of_block(self, cid: CID) -> Rule | None:
        """The rule that decides about a block, whatever the way to it."""
        key = ("ipfs", cid.multihash)
        if not self._codes:
            return _last(self._found(key, b"")) if key in self._by_key else None
        return _last([*self._found(key, b""), *self._hashed(_path_texts(cid, ()))])

    def _found(self, key: tuple[object, ...], path: bytes) -> Iterator[Found]:
        for number, rule in self._by_key.get(key, ()):
            if rule.matches(path):
                yield number, rule

    def _hashed(self, texts: Iterable[bytes]) -> Iterator[Found]:
        for text in texts:
            for code in self._codes:
                digest = _HASHES[code](text) if code in _HASHES else b""
                yield from self._by_key.get(("hash", code, digest), ())


def _last(found: Iterable[Found]) -> Rule | None:
    number_and_rule = max(found, key=lambda pair: pair[0], default=None)
    return None if number_and_rule is None else number_and_rule[1]


def _path_texts(cid: CID, segments: tuple[bytes, ...]) -> list[bytes]:
    """What a list's maker may have hashed: the multihash in base58, or CIDv1 in base32, with the path behind it."""
    plain = b"/".join(segments)
    escaped = "/".join(encode_segment(segment) for segment in segments).encode()
    multihash = encode_base58(cid.multihash).encode()
    version_1 = str(cid.to_v1()).encode()
    texts = []
    for path in {plain, escaped}:
        texts += [multihash + b"/" + path if path else multihash, version_1 + b"/" + path]
    return texts


def _name_texts(root: str, key: object, path: bytes) -> list[bytes]:
    below = b"/" + path if path else b""
    if isinstance(key, bytes):
        return [encode_base58(key).encode() + below, str(CID.parse(root).to_v1()).encode() + b"/" + path]
    name = str(key).encode("utf-8", "replace")
    return [b"/ipns/" + name + below, name + b"/" + path]
