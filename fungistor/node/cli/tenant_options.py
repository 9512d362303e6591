"""The grammar of what is about tenants: `tenant`, `token`, `link`, and `--tenant` of the commands that act for one."""

from __future__ import annotations

import argparse
from typing import Any, Protocol

SIZE_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
SIZE_MAX = 2**60
NONE = -1
"""Of a bound that is taken away."""

FORMS = ("car", "raw", "tar", "zip", "json", "cbor", "dag-json", "dag-cbor")


Commands = argparse._SubParsersAction  # noqa: SLF001  # argparse has no public name for what add_subparsers gives


class Add(Protocol):
    """Adds a command to some others, as `fungistor.node.cli.options` does."""

    def __call__(
        self,
        commands: Commands[Any],
        name: str,
        about: str,
        example: str,
        handler: str,
    ) -> argparse.ArgumentParser: ...


def add_tenant_option(parser: argparse.ArgumentParser) -> None:
    """Let a command act for a tenant."""
    parser.add_argument(
        "--tenant", metavar="NAME", help="for whom, by name or number (the network's own; with a token, its tenant)"
    )


def add_privacy(parser: argparse.ArgumentParser) -> None:
    """Let a command say whose an object is to read."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--private", action="store_const", const=True, help="only for its tenant's tokens and signed links"
    )
    which.add_argument(
        "--public", dest="private", action="store_const", const=False,
        help="for anybody who has the CID (an object stays as it is; a new one is public)",
    )  # fmt: skip


def add_tenants(commands: Commands[Any], add: Add) -> None:
    """Add tenant, token and link."""
    tenant = add(commands, "tenant", "say who there is beside the network's own tenant, and how much each may have",
                 "fungistor tenant add museum --bytes 500G", "")  # fmt: skip
    verbs = tenant.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, parser_class=type(tenant))
    new = add(verbs, "add", "let there be a tenant, with keys of its own; needs the root key",
              "fungistor tenant add museum --bytes 500G --objects 100000", "tenant:add")  # fmt: skip
    new.add_argument("name", metavar="NAME", help="what it is called")
    _add_bounds(new, "no bound")
    add(verbs, "list", "list tenants with what they have", "fungistor tenant list", "tenant:listed")
    show = add(verbs, "show", "say what a tenant has, and may have", "fungistor tenant show museum", "tenant:show")
    show.add_argument("name", nargs="?", metavar="NAME", help="the tenant (the network's own; with a token, its)")
    quota = add(
        verbs, "quota", "bound what a tenant may have", "fungistor tenant quota museum --bytes 1T", "tenant:quota"
    )
    quota.add_argument("name", metavar="NAME", help="the tenant")
    _add_bounds(quota, "as it is; none: no bound")
    rename = add(
        verbs, "rename", "give a tenant another name", "fungistor tenant rename museum archive", "tenant:rename"
    )
    rename.add_argument("name", metavar="NAME", help="the tenant")
    rename.add_argument("new", metavar="NEW", help="its new name")
    hold = add(verbs, "hold", "take a tenant's key into this home; needs the root key", "fungistor tenant hold museum",
               "tenant:hold")  # fmt: skip
    hold.add_argument("name", metavar="NAME", help="the tenant")
    remove = add(verbs, "remove", "remove a tenant that has nothing any more", "fungistor tenant remove museum",
                 "tenant:remove")  # fmt: skip
    remove.add_argument("name", metavar="NAME", help="the tenant")
    remove.add_argument("--dry-run", action="store_true", help="say what would end, and change nothing")
    links = add(verbs, "revoke-links", "end all links that were signed for a tenant so far",
                "fungistor tenant revoke-links museum", "tenant:revoke_links")  # fmt: skip
    links.add_argument("name", metavar="NAME", help="the tenant")
    links.add_argument("--dry-run", action="store_true", help="change nothing")
    _add_tokens(commands, add)
    _add_link(commands, add)


def _add_link(commands: Commands[Any], add: Add) -> None:
    link = add(commands, "link", "sign a URL by which anybody reads one path of a private object, for a time",
               "fungistor link CID/report.pdf --expires 1h --tenant museum", "link:link")  # fmt: skip
    link.add_argument("cid_path", metavar="CID[/path]", help="a CID in any form, and a path below it")
    link.add_argument("--path", metavar="P", help="the path, or more of it")
    link.add_argument("--expires", type=_duration, required=True, metavar="D", help="for how long, such as 1h or 7d")
    link.add_argument("--format", choices=FORMS, default="", help="as ?format= has it (the file or page itself)")
    link.add_argument("--base", metavar="URL", help="where the gateway is reached (else as config.toml announces it)")
    add_tenant_option(link)


def _add_tokens(commands: Commands[Any], add: Add) -> None:
    token = add(
        commands, "token", "let others act for a tenant", "fungistor token add --tenant museum --scopes read", ""
    )
    verbs = token.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, parser_class=type(token))
    new = add(verbs, "add", "issue a token; it is shown once",
              "fungistor token add --tenant museum --expires 30d -o press.token", "token:add")  # fmt: skip
    add_tenant_option(new)
    new.add_argument("--scopes", metavar="S,S", default="read",
                     help="what its bearer may do: read, publish, unpublish, names, admin (read)")  # fmt: skip
    new.add_argument("--label", metavar="TEXT", default="token", help="what people call it")
    new.add_argument("--expires", type=_duration, metavar="D", help="after how long it ends, such as 30d (never)")
    new.add_argument("-o", "--output", metavar="FILE", help="a new file for it, closed to others (else stdout)")
    add_tenant_option(add(verbs, "list", "list a tenant's tokens, never what they are made of",
                          "fungistor token list --tenant museum", "token:listed"))  # fmt: skip
    revoke = add(verbs, "revoke", "take a token back", "fungistor token revoke 0123456789abcdef", "token:revoke")
    add_tenant_option(revoke)
    revoke.add_argument("id", metavar="ID", help="the token's id, as `token list` tells it")
    revoke.add_argument("--dry-run", action="store_true", help="say which it is, and change nothing")


def _add_bounds(parser: argparse.ArgumentParser, otherwise: str) -> None:
    parser.add_argument(
        "--bytes", type=_size, metavar="SIZE", help=f"bytes of content, such as 500G or 2Ti ({otherwise})"
    )
    parser.add_argument("--objects", type=_bound, metavar="N", help=f"objects ({otherwise})")


def _duration(text: str) -> int:
    from fungistor.node.cli.options import duration  # which imports this file

    return duration(text)


def _size(text: str) -> int:
    if text == "none":
        return NONE
    lower = text.lower().removesuffix("b")
    digits = lower.rstrip("kmgti")
    unit = SIZE_UNITS.get(lower[len(digits) :])
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19) or unit is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, such as 500G, 2Ti or 1048576, nor none")
    if int(digits) * unit > SIZE_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is more than an exbibyte")
    return int(digits) * unit


def _bound(text: str) -> int:
    if text == "none":
        return NONE
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise argparse.ArgumentTypeError(f"{text!r} is no number, nor none")
    return int(text)
