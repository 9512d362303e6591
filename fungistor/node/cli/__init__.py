"""The command line. The one room that prints; every command's work is done elsewhere."""

from __future__ import annotations

from fungistor.node.cli.main import main

__all__ = ["main"]
