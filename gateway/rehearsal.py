"""One request that nobody sent, before the first: what is imported, started and opened once is then at hand."""

from __future__ import annotations

import os

import anyio
from starlette.types import ASGIApp, Message

from fungistor.dag.cid import CID, RAW, sha256_multihash


async def rehearse(app: ASGIApp) -> None:
    """Have `app` look for random bytes, which are not held anywhere."""
    path = f"/ipfs/{CID(1, RAW, sha256_multihash(os.urandom(32)))}"

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError("forever has passed")

    async def send(message: Message) -> None:
        del message

    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"user-agent", b"rehearsal")],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
        },
        receive,
        send,
    )
