"""Large entries of a log in the files of a folder, each flushed as members flush what they keep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fungistor.catalog.claims import Claim


class FileDeposit:
    """`fungistor.catalog.claims.Deposit`. Several processes at once; what is put stays there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder

    def put(self, claim: Claim, payload: bytes) -> None:
        with open(self._path(claim), "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())

    def settled(self, claim: Claim) -> None:
        assert self._path(claim).exists()

    def get(self, claims: Sequence[Claim]) -> list[bytes | None]:
        found = [path.read_bytes() if (path := self._path(claim)).exists() else None for claim in claims]
        return [
            payload if payload is not None and claim.fits(payload) else None
            for claim, payload in zip(claims, found, strict=True)
        ]

    def _path(self, claim: Claim) -> Path:
        return self._folder / claim.place.hex()

    def close(self) -> None:
        """Nothing is open."""
