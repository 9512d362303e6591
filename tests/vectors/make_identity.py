"""Makes identity.json: run it only when the format's version changes."""

from __future__ import annotations

import json
from pathlib import Path

from fungistor.ids import MemberId, MemberNumber
from fungistor.node.identity import member_identity

CASES = [(0, 1, "m01"), (0, 2, "m01"), (0, 1, "m02"), (255, 70_000, "fra-1.disk_2")]


def make() -> list[dict[str, object]]:
    return [
        {
            "network_key": bytes([byte] * 32).hex(),
            "number": number,
            "id": name,
            "identity": member_identity(bytes([byte] * 32), MemberNumber(number), MemberId(name)).hex(),
        }
        for byte, number, name in CASES
    ]


if __name__ == "__main__":
    Path(__file__).with_name("identity.json").write_text(json.dumps(make(), indent=1) + "\n")
