"""`python -m fungistor.node` is `fungistor`, for where the script is not on the path."""

from __future__ import annotations

import sys

from fungistor.node.cli import main

if __name__ == "__main__":
    sys.exit(main())
