"""Keys with known seeds, and records signed under them."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fungistor.dag.cid import CID
from fungistor.names.public_key import KeyType, PublicKey
from fungistor.names.record import Record, create, parse

NOW_S = 1_800_000_000
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Signer:
    """An Ed25519 key made of one byte."""

    seed: int

    @property
    def private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(bytes([self.seed]) * 32)

    @property
    def public(self) -> PublicKey:
        raw = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return PublicKey(KeyType.ED25519, raw)

    @property
    def name(self) -> CID:
        return self.public.name

    @property
    def text(self) -> str:
        return self.name.text("base36")

    def encode(
        self,
        value: str,
        *,
        sequence: int = 0,
        expires_s: int = NOW_S + DAY_S,
        ttl_s: int = 1800,
        with_v1: bool = True,
    ) -> bytes:
        """Sign a record."""
        return create(value, sequence, expires_s, ttl_s, self.public, self.private.sign, with_v1=with_v1)

    def record(self, value: str, *, sequence: int = 0, expires_s: int = NOW_S + DAY_S, ttl_s: int = 1800) -> Record:
        """Sign a record and read it back."""
        return parse(self.name, self.encode(value, sequence=sequence, expires_s=expires_s, ttl_s=ttl_s))
