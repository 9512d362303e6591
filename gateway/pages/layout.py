"""What the gateway's pages have in common."""

from __future__ import annotations

import hashlib
from importlib import resources

_STYLE = resources.files("gateway.pages").joinpath("style.css").read_text(encoding="utf-8").replace("}\n", "}").strip()

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M1 8a7 6 0 0 1 14 0z' fill='%2317624b'/%3E%3Cpath d='M6 8h4v6H6z' fill='%238d9994'/%3E%3C/svg%3E"
)

HEAD = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
    f'<link rel="icon" href="{_ICON}">\n<style>{_STYLE}</style>\n'
)

TAIL = "</body>\n</html>\n"


def asset_hash(*parts: str) -> str:
    """Return 16 hex digits that change with the pages' look, for entity tags."""
    return hashlib.blake2b("\0".join((HEAD, TAIL, *parts)).encode(), digest_size=8).hexdigest()


def human_size(size: int) -> str:
    """Format bytes for people: three digits that matter, binary units."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 999.5 or unit == "PiB":
            break
        value /= 1024
    if unit == "B":
        return f"{size} B"
    return f"{value:.2f} {unit}" if value < 9.995 else f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"
