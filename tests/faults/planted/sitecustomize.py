"""Python imports this as it starts, where a test has put this folder on PYTHONPATH: plant the bug that it named."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if bug := os.environ.get("FUNGISTOR_TEST_PLANTED_BUG"):
    sys.path.append(str(Path(__file__).parents[3]))
    from tests.faults.planted.bugs import BUGS

    BUGS[bug]()
