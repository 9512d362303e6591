"""Write tests/vectors/placement.json: run as `python -m tests.vectors.make_placement`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fungistor.ids import MemberId, MemberNumber, StripeId
from fungistor.placement import Member, PlacementTable, Policy, group_of, plan, window

STORED = Path(__file__).with_name("placement.json")


def member(number: int, zone: tuple[str, ...] = (), weight: int = 1) -> Member:
    return Member(MemberNumber(number), MemberId(f"m{number:02}"), zone, weight)


def stripe(seed: int) -> StripeId:
    return StripeId(hashlib.sha256(b"placement vector %d" % seed).digest())


def plans() -> dict[str, PlacementTable]:
    """The tables of the vectors by name: first ones, then ones planned from those."""
    twenty = [member(number) for number in range(1, 21)]
    sited = [member(number, (f"site{number % 7}",), 1 + number % 3) for number in range(1, 36)]
    survive = Policy(survive_depth=1)
    first, first_sited = plan(twenty, None, Policy()), plan(sited, None, survive)
    return {
        "5 members": plan(twenty[:5], None, Policy()),
        "20 members": first,
        "20 members, 21 joined": plan([*twenty, member(21)], first, Policy()),
        "20 members, 4 replaced by 21": plan([*twenty[:3], *twenty[4:], member(21)], first, Policy()),
        "35 members on 7 sites": first_sited,
        "35 members on 7 sites, 9 left": plan([m for m in sited if m.number != 9], first_sited, survive),
    }


def generate() -> dict[str, Any]:
    tables = plans()
    shown = tables["35 members on 7 sites"]
    return {
        "format": "placement table 0",
        "tables": [
            {
                "name": name,
                "row_len": table.row_len,
                "bytes": len(data := table.to_bytes()),
                "sha256": hashlib.sha256(data).hexdigest(),
                "hex": data.hex() if len(data) <= 256 else data[:64].hex() + "...",
                "first_row": _joined(table.rows[0]),
                "last_row": _joined(table.rows[-1]),
            }
            for name, table in tables.items()
        ],
        "windows": [
            {
                "stripe_id": stripe(seed).hex(),
                "group": group_of(stripe(seed)),
                "table": "35 members on 7 sites",
                "shards": shards,
                "members": _joined(window(shown, stripe(seed), shards)),
            }
            for seed, shards in enumerate((5, 12, 20))
        ],
    }


def _joined(row: tuple[MemberNumber, ...]) -> str:
    return " ".join(map(str, row))


def render() -> str:
    return json.dumps(generate(), indent=1) + "\n"


if __name__ == "__main__":
    STORED.write_text(render())
