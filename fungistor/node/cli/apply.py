"""pool apply: a pool file's plan, and carrying it out."""

from __future__ import annotations

import argparse

from fungistor.node.cli.catalog import asked
from fungistor.node.cli.output import Output, safe
from fungistor.node.home import Home
from fungistor.node.pool_apply import Applied, apply


def run(arguments: argparse.Namespace, output: Output) -> int:
    applied = apply(
        Home.resolve(arguments.home),
        arguments.file,
        asked(arguments, arguments.catalog),
        go=arguments.yes,
        lost=arguments.lost,
        say=output.note,
    )
    if output.as_json:
        output.json_line(applied.to_json())
        return 0
    for text in _words(applied):
        output.line(text)
    if not applied.is_nothing and not applied.is_done:
        output.note("nothing was changed: --yes does it")
    return 0


def _words(applied: Applied) -> list[str]:
    plan = applied.plan
    if applied.is_nothing:
        return ["the pool is as the file says"]
    verb = "is now" if applied.is_done else "would be"
    policies = [f"new policies: {', '.join(map(safe, applied.policies))}"] if applied.policies else []
    if plan is None:
        return policies
    lines = [f"{verb} layout {plan.layout}: {plan.members} members, {plan.taking_shards} of them take shards"]
    for what, names in (("added", plan.added), ("changed", applied.changed), ("removed", plan.removed)):
        if names:
            lines.append(f"  {what}: {', '.join(map(safe, names))}")
    if plan.moved_share:
        moved = f"{100 * plan.moved_share:.2f} % of all shards move: {plan.moved_bytes / (1 << 20):,.1f} MiB"
        lines.append(f"  {moved}, by `fungistor repair`")
    return lines + policies
