"""Layouts by policy: every layout has a table for each named policy, and a stripe's slot says in one number which.

A slot has 32 bits for the layout that it was written under. The upper ones are the policy's number, so that whoever has
the slot and the tables knows the members, and no reader needs to know what a policy says.
"""

from __future__ import annotations

from typing import Final

from fungistor.ids import LayoutNumber, PolicyNumber

LAYOUT_BITS: Final = 22
LAYOUT_MAX: Final = (1 << LAYOUT_BITS) - 1
"""Four million changes of the pool."""

POLICY_NUMBER_MAX: Final = (1 << 32 - LAYOUT_BITS) - 1

DEFAULT_NUMBER: Final = PolicyNumber(0)


def track(policy: PolicyNumber, layout: LayoutNumber) -> LayoutNumber:
    """A layout's number as slots have it that are written by a policy."""
    return LayoutNumber(policy << LAYOUT_BITS | layout)


def policy_of(layout: LayoutNumber) -> PolicyNumber:
    """The policy by which a slot was written."""
    return PolicyNumber(layout >> LAYOUT_BITS)


def layout_of(layout: LayoutNumber) -> LayoutNumber:
    """The layout's own number."""
    return LayoutNumber(layout & LAYOUT_MAX)
