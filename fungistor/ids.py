"""Identities that cross rooms, as types of their own so that none is taken for another."""

from __future__ import annotations

from typing import NewType

MemberId = NewType("MemberId", str)
"""A member's name for people and folders, such as ``m07``. It may come back after a wipe."""

MemberNumber = NewType("MemberNumber", int)
"""A member's number in layouts and records, from 1. Never reused, not even for the same address."""

StripeId = NewType("StripeId", bytes)
"""32 bytes: the capability to find, check and rebuild a stripe's shards, not to read them."""

ObjectId = NewType("ObjectId", bytes)
"""32 bytes: a keyed hash of tenant and root CID."""

SessionId = NewType("SessionId", bytes)
"""16 bytes: one publish under way."""

Revision = NewType("Revision", int)
"""How many commands were applied with effect."""

LayoutNumber = NewType("LayoutNumber", int)
"""One numbered state of the pool, from 1. In a stripe's slot it carries the policy's number, too: see
`fungistor.placement.tracks`."""

PolicyNumber = NewType("PolicyNumber", int)
"""A named policy's number, never reused. 0 is the policy `default`."""

TenantNumber = NewType("TenantNumber", int)
"""Tenant 0 is the network's own."""

OWN_TENANT = TenantNumber(0)
