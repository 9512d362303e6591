"""`python -m fungistor.zdb.daemon`: one member daemon in the foreground."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fungistor import __version__
from fungistor.errors import FungiStorError
from fungistor.zdb.daemon.arguments import USAGE, parse_arguments


def main(argv: Sequence[str]) -> int:
    """Run a daemon from command-line words and return its exit code."""
    if any(word in ("--help", "-help", "-h") for word in argv):
        sys.stdout.write(USAGE)
        return 0
    if any(word in ("--version", "-version") for word in argv):
        sys.stdout.write(f"fungistor {__version__}\n")
        return 0
    try:
        config = parse_arguments(argv)
        from fungistor.zdb.daemon.server import run

        return run(config)
    except KeyboardInterrupt:
        return 130
    except FungiStorError as error:
        sys.stderr.write(f"zdb: {error}" + (f" ({error.hint})" if error.hint else "") + "\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
