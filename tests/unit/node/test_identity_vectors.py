from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| 32 bytes ([0-9a-f]{2}) \| (\d+) \| `([^`]+)` \| `([0-9a-f]+)` \|$", re.MULTILINE)


def test_the_page_quotes_the_frozen_identities() -> None:
    """docs/formats/identity.md lists every vector of identity.json and nothing else."""
    page = (ROOT / "docs/formats/identity.md").read_text()
    quoted = [
        {"network_key": byte * 32, "number": int(number), "id": name, "identity": identity}
        for byte, number, name, identity in ROW.findall(page)
    ]
    assert quoted == json.loads((ROOT / "tests/vectors/identity.json").read_text())
