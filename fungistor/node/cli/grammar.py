"""What the command line's grammar is made of: the parser, how a command is added, what all of them take."""

from __future__ import annotations

import argparse
from typing import NoReturn

from fungistor.errors import InvalidError


class UsageError(InvalidError):
    """The words of a command line make no command."""


class Parser(argparse.ArgumentParser):
    """argparse that raises instead of printing and leaving, and never guesses an abbreviated option."""

    def __init__(self, *args: object, **options: object) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see `{self.prog} --help`")


Commands = argparse._SubParsersAction  # noqa: SLF001  # argparse has no public name for what add_subparsers gives


def add(commands: Commands[Parser], name: str, about: str, example: str, handler: str) -> Parser:
    """Add a command. `handler` is MODULE:FUNCTION below this package, imported only when the command runs."""
    text = about[0].upper() + about[1:] + "."
    epilog = f"example:\n  {example}" if example else None
    parser: Parser = commands.add_parser(name, help=about, description=text, epilog=epilog)
    parser.set_defaults(handler=handler)
    add_common(parser, default=False)
    return parser


ELSEWHERE = (
    ("--pool", "FILE", "its members, as `fungistor pool export` writes them"),
    ("--catalog", "URL", "its catalog: etcd://HOST:PORT,HOST:PORT[/PREFIX]; etcds:// with TLS"),
    ("--catalog-user", "NAME", "etcd's user"),
    ("--catalog-password-file", "F", "a file with that user's password"),
    ("--catalog-ca", "F", "certificates to trust instead of the system's (PEM)"),
)


def add_common(parser: Parser, *, default: bool) -> None:
    """Add what is accepted before and after the command. After it a default would undo what was said before it."""
    nothing = argparse.SUPPRESS
    group = parser.add_argument_group("everywhere")
    group.add_argument(
        "--home",
        metavar="DIR",
        default=None if default else nothing,
        help="the network's folder (else $FUNGISTOR_HOME, else ~/.local/share/fungistor)",
    )
    group.add_argument(
        "--json",
        action="store_true",
        default=False if default else nothing,
        help="one JSON object a line on stdout, errors as one JSON line on stderr",
    )
    unsaid = None if default else nothing
    group = parser.add_argument_group("a network that runs elsewhere, or has its catalog there")
    for option, name, about in ELSEWHERE:
        group.add_argument(option, metavar=name, default=unsaid, help=about)


def count(text: str) -> int:
    """Read a number of 1 to 1000."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")
    return int(text)
