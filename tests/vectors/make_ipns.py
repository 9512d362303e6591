"""Makes ipns.json: IPNS records of known keys. Run by hand when the format changes, which it must not."""

from __future__ import annotations

import json
from pathlib import Path

from fungistor.names.key import name_text
from fungistor.names.record import parse
from tests.unit.names.signing import DAY_S, NOW_S, Signer

CASES = (
    ("versions 1 and 2", 1, "/ipfs/bafkqaaa", 0, 1800, True),
    ("version 2 alone", 1, "/ipfs/bafkqaaa", 1, 60, False),
    ("a path below a root", 2, "/ipfs/bafkqaaa/docs/ü", 2**40, 3600, True),
    ("a name that means a name", 3, "/ipns/example.com", 7, 0, True),
    ("the last sequence", 4, "/ipfs/bafkqaaa", 2**63 - 1, 1, True),
)


def main() -> None:
    """Write the file beside this one."""
    records = []
    for what, seed, value, sequence, ttl_s, with_v1 in CASES:
        signer = Signer(seed)
        encoded = signer.encode(value, sequence=sequence, expires_s=NOW_S + DAY_S, ttl_s=ttl_s, with_v1=with_v1)
        record = parse(signer.name, encoded)
        records.append(
            {
                "what": what,
                "seed": seed,
                "name": name_text(signer.name),
                "value": record.value,
                "sequence": record.sequence,
                "expires": record.expires_s,
                "ttl": record.ttl_s,
                "v1": record.has_v1,
                "record": encoded.hex(),
            }
        )
    target = Path(__file__).with_name("ipns.json")
    target.write_text(json.dumps({"records": records}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
