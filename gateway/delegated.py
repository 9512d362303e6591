"""`/routing/v1`: tells IPFS nodes that what this network holds can be fetched here over HTTP.

Specification: https://specs.ipfs.tech/routing/http-routing-v1/. It answers for its own holdings alone and asks nobody:
a provider is this gateway or there is none. Runs in worker threads, since whether something is held may take a look.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from fungistor.dag.cid import CID
from fungistor.errors import FungiStorError, InvalidError, NotFoundError
from fungistor.names.errors import NameUnknownError
from fungistor.names.key import parse_key
from fungistor.names.multiaddress import protocols
from gateway import conditions
from gateway.backend import Content
from gateway.errors import RefusedError
from gateway.formats import ipns_record
from gateway.names import Names, record_for
from gateway.negotiation import parse_accept
from gateway.requests import Answer, Request

PREFIX = b"/routing/v1/"
TRANSPORT = "transport-ipfs-gateway-http"
NDJSON = "application/x-ndjson"

FOUND_S, NOTHING_S = 300, 15
STALE_S = 172_800
FILTERS_MAX = 64
STREAM_NAME_CHARS_MAX = 1200


@dataclass(frozen=True, slots=True)
class Announcement:
    """Who this node is to IPFS, and where its gateway can be reached."""

    peer_id: CID
    addresses: tuple[str, ...] = ()

    @property
    def record(self) -> dict[str, object]:
        """The record of schema `peer`."""
        from fungistor.dag.multibase import encode_base58

        return {
            "Schema": "peer",
            "ID": encode_base58(self.peer_id.multihash),
            "Addrs": list(self.addresses),
            "Protocols": [TRANSPORT],
        }


class DelegatedRouting:
    """Answers of one worker."""

    def __init__(
        self,
        content: Content,
        names: Names,
        announcement: Announcement | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._content = content
        self._names = names
        self._announcement = announcement
        self._clock = clock

    def answer(self, request: Request) -> Answer:
        """Answer a request below the prefix.

        Raises: RefusedError (400, 405, 406, 422, 501); what the content raises.
        """
        what, _, argument = request.raw_path.removeprefix(PREFIX).decode("latin-1").partition("/")
        if what == "dht":
            raise RefusedError(501, "this node keeps no DHT", hint="ask for /routing/v1/providers/CID")
        ask = {"providers": self._providers, "peers": self._peers, "ipns": self._ipns}.get(what)
        if ask is None or not argument or "/" in argument:
            raise RefusedError(400, "no such routing call", hint="there are providers/CID, peers/ID and ipns/NAME")
        if request.method not in ("GET", "HEAD"):
            raise RefusedError(
                405,
                f"{request.method} is not taken here: this node serves what its own network holds",
                headers={"Allow": "GET, HEAD, OPTIONS"},
            )
        return ask(request, argument[:STREAM_NAME_CHARS_MAX])

    def _providers(self, request: Request, text: str) -> Answer:
        try:
            cid = CID.parse(text)
        except InvalidError as error:
            raise RefusedError(422, f"{text[:80]!r} is no CID: {error.message}") from error
        return self._records(request, "Providers", is_ours=self._holds(cid))

    def _peers(self, request: Request, text: str) -> Answer:
        key = parse_key(text)
        if key is None:
            raise RefusedError(
                422, f"{text[:80]!r} is no peer id", hint="write it in base58, or as a CID of libp2p-key"
            )
        ours = self._announcement is not None and key.multihash == self._announcement.peer_id.multihash
        return self._records(request, "Peers", is_ours=ours)

    def _ipns(self, request: Request, text: str) -> Answer:
        key = parse_key(text)
        if key is None:
            raise RefusedError(422, f"{text[:80]!r} is no IPNS key")
        media = {item.type for item in parse_accept(request.accept) if item.q > 0}
        if not media & {ipns_record.MEDIA_TYPE, "application/*", "*/*"}:
            raise RefusedError(406, f"records are given as {ipns_record.MEDIA_TYPE} alone")
        try:
            record = record_for(self._names, self._content, text, None)
        except (NameUnknownError, NotFoundError) as error:
            # The specification: no error, but nothing that could be taken for a record either.
            fields = self._fields(NOTHING_S) | {"Content-Type": "text/plain; charset=utf-8"}
            return Answer.of_bytes(200, fields, f"{error.message}\n".encode())
        left_s = max(0, int(record.expires_s - self._clock()))
        etag = f'"{hashlib.sha256(record.encoded).hexdigest()[:32]}"'
        fields = self._fields(int(self._names.remaining_s(record)), stale_s=left_s) | {
            "Content-Type": ipns_record.MEDIA_TYPE,
            "Etag": etag,
        }
        expires = conditions.http_date(int(record.expires_s))
        if expires is not None:
            fields["Expires"] = expires
        if_none_match = request.header("if-none-match")
        if if_none_match is not None and conditions.matches_none(if_none_match, etag):
            return Answer(304, fields)
        return Answer.of_bytes(200, fields, record.encoded)

    def _holds(self, cid: CID) -> bool:
        if self._announcement is None or not self._announcement.addresses or cid.is_identity:
            return False
        try:
            with self._content.open(cid):
                return True
        except FungiStorError as error:
            # What nobody may have, or what cannot be had, is not announced; what is down now is an error to be told.
            if isinstance(error, NotFoundError | InvalidError):
                return False
            raise

    def _records(self, request: Request, key: str, *, is_ours: bool) -> Answer:
        records = []
        if is_ours and self._announcement is not None:
            record = filtered(self._announcement.record, request)
            records = [record] if record is not None else []
        fields = self._fields(FOUND_S if records else NOTHING_S)
        if any(item.type == NDJSON and item.q > 0 for item in parse_accept(request.accept)):
            fields["Content-Type"] = NDJSON
            return Answer.of_bytes(200, fields, b"".join(json.dumps(one).encode() + b"\n" for one in records))
        fields["Content-Type"] = "application/json"
        return Answer.of_bytes(200, fields, json.dumps({key: records}).encode())

    def _fields(self, max_age_s: int, stale_s: int = STALE_S) -> dict[str, str]:
        control = f"public, max-age={max_age_s}, stale-while-revalidate={stale_s}, stale-if-error={stale_s}"
        modified = conditions.http_date(int(self._clock()))
        assert modified is not None
        return {"Cache-Control": control, "Vary": "Accept", "Last-Modified": modified}


def filtered(record: dict[str, object], request: Request) -> dict[str, object] | None:
    """Apply `filter-protocols` and `filter-addrs` (IPIP-484); None where nothing is left."""
    wanted = _filters(request, "filter-protocols")
    spoken = record["Protocols"]
    assert isinstance(spoken, list)
    if wanted and not wanted & set(spoken):
        return None
    by_address = _filters(request, "filter-addrs")
    if not by_address:
        return record
    addresses = record["Addrs"]
    assert isinstance(addresses, list)
    unwanted = {name[1:] for name in by_address if name.startswith("!")}
    needed = {name for name in by_address if not name.startswith("!")} - {"unknown"}
    kept = [
        address
        for address in addresses
        if not protocols(address) & unwanted and (not needed or protocols(address) & needed)
    ]
    return {**record, "Addrs": kept} if kept else None


def _filters(request: Request, name: str) -> set[str]:
    text = request.query.get(name, "")
    return {part.strip().lower() for part in text.split(",")[:FILTERS_MAX] if part.strip()}
