"""A block: a CID and the bytes that hash to it."""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.dag.cid import CID


@dataclass(frozen=True, slots=True)
class Block:
    """One addressed piece of a DAG. That the bytes match the CID is whoever made it who vouches."""

    cid: CID
    data: bytes
