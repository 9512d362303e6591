"""The command line's grammar: every command of docs/cli.md, what it says of itself, and what is not built yet."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Sequence

from fungistor.node.cli.grammar import ELSEWHERE, Commands, Parser, add, add_common, count
from fungistor.node.cli.pool_options import add_policy, add_pool
from fungistor.node.cli.tenant_options import add_privacy, add_tenant_option, add_tenants

PROFILES = ("unixfs-v1-2025", "unixfs-v0-2015", "kubo-cidv1")
"""Repeated here so that `--help` and a wrong option cost no import of the DAG room; a test holds the two equal."""

ABOUT = """\
FungiStor: publish a file or a folder once, fetch it by its IPFS CID, with any 4 of 20 places dead.

A first round, in two terminals:

  fungistor up                      # a whole network on this machine; leave it running
  fungistor publish ./site          # prints the CID
  fungistor get CID -o copy         # or open http://127.0.0.1:8480/ipfs/CID
"""

EXITS = """\
exit codes: 0 done, 1 failed, 2 refused input, 3 cannot be had now (try later), 4 not found, 5 denied, 6 conflict,
130 Ctrl-C
"""


def build_parser() -> Parser:
    """Make the parser of everything but `zdb`, whose words are those of the original daemon."""
    parser = Parser(prog="fungistor", description=ABOUT, epilog=EXITS)
    add_common(parser, default=True)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)
    _add_up(commands)
    _add_content(commands)
    _add_car(commands)
    _add_network(commands)
    add_removal(commands)
    _add_names(commands)
    _add_keys(commands)
    add(commands, "doctor", "say what is wrong with home and network, and what to do", "fungistor doctor", "doctor:run")
    _add_gateway(commands)
    _add_member(commands)
    add_pool(commands)
    add_policy(commands)
    _add_cache(commands)
    _add_catalog(commands)
    _add_log(commands)
    _add_node(commands)
    add_tenants(commands, add)
    add(commands, "zdb", "run one member daemon by itself", "fungistor zdb --data d --index i --port 9900", "other:zdb")
    # `zdb` is here for the help alone: its flags are the original's (`-data`, `--socket` ...), read by the daemon.
    add(commands, "version", "say the versions, and which erasure engine runs", "fungistor version", "other:version")
    return parser


def _add_up(commands: Commands[Parser]) -> None:
    parser = add(
        commands,
        "up",
        "run a whole network on this machine: members, catalog, gateway",
        "fungistor up --gateway 127.0.0.1:8480",
        "up:run",
    )
    parser.add_argument("--members", type=count, metavar="N", help="how many members a new network gets (20)")
    parser.add_argument("--gateway", metavar="HOST:PORT", help="where HTTP is served (127.0.0.1:8480; port 0: any)")
    parser.add_argument("--ready-file", metavar="F", help="written when requests are served, removed at exit")
    parser.add_argument("--no-sync", action="store_true", help="nothing waits for the disk: for trials and benchmarks")
    parser.add_argument(
        "--admin", metavar="HOST:PORT", help="where metrics and states are told to operators (nowhere; port 0: any)"
    )
    parser.add_argument("--gateway-hosts", metavar="F", help="JSON like Kubo's PublicGateways: what each Host gives")


def _add_catalog(commands: Commands[Parser]) -> None:
    parser = add(commands, "catalog", "look after the network's log", "fungistor catalog migrate URL", "")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    _add_snapshot(verbs)
    again = add(
        verbs,
        "rebuild",
        "bring the whole catalog back from the members alone, by the root key, into a home that has none",
        "fungistor --home new catalog rebuild --pool pool.toml",
        "rebuild:run",
    )
    again.add_argument("--dry-run", action="store_true", help="say what would come back, and change nothing")
    again.add_argument(
        "--incomplete", action="store_true",
        help="take what the members have that answer, though later commits may lie with the others",
    )  # fmt: skip
    migrate = add(
        verbs,
        "migrate",
        "move the catalog of a network that stands still to etcd",
        "fungistor catalog migrate etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379",
        "catalog:migrate",
    )
    migrate.add_argument("url", metavar="URL", help="etcd://HOST:PORT,HOST:PORT[/PREFIX]; etcds:// with TLS")


def _add_snapshot(verbs: Commands[Parser]) -> None:
    add(
        verbs,
        "snapshot",
        "put a snapshot of the catalog into the pool, and trim the log before it; `up` does so by itself",
        "fungistor catalog snapshot",
        "catalog:snapshot",
    )


def _add_log(commands: Commands[Parser]) -> None:
    log = add(commands, "log", "show who did what, in the order of the catalog", "fungistor log --follow", "log:log")
    add_tenant_option(log)
    log.add_argument("--follow", action="store_true", help="go on with what is committed from now on")
    log.add_argument("--after", type=_number, default=0, metavar="N", help="only what stands behind entry N")


def _add_node(commands: Commands[Parser]) -> None:
    parser = add(commands, "node", "say which machines may write to the network", "fungistor node list", "")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    add(verbs, "list", "list nodes, what they may, and what they last told", "fungistor node list", "node:list_nodes")
    made = add(
        verbs,
        "add",
        "make the key file of another machine; needs the root key",
        "fungistor node add paris --out paris.key --scopes publish,names",
        "node:add",
    )
    made.add_argument("name", metavar="NAME", help="what this network calls the machine")
    made.add_argument("-o", "--out", metavar="FILE", required=True, help="where its key file is written")
    made.add_argument(
        "--scopes", metavar="S,S", default="publish,delete,names,pool,admin",
        help="what it may: publish, delete, names, pool, admin (all of them)",
    )  # fmt: skip
    made.add_argument("--tenants", metavar="N,N", default="0", help="whose objects it may write and read (0)")
    revoke = add(
        verbs, "revoke", "refuse all further writes of a node; needs the root key", "fungistor node revoke paris",
        "node:revoke",
    )  # fmt: skip
    revoke.add_argument("name", metavar="NAME", help="the node's name, or its id as `node list` tells it")


def _add_cache(commands: Commands[Parser]) -> None:
    parser = add(commands, "cache", "look after what the gateway keeps on disk", "fungistor cache purge", "")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    purge = add(
        verbs, "purge", "forget all that is kept, or one object's blocks", "fungistor cache purge", "cache:purge"
    )
    purge.add_argument("cid", nargs="?", metavar="CID", help="an object's root, or one block")
    add(verbs, "status", "say how much is kept", "fungistor cache status", "cache:status")


def _add_content(commands: Commands[Parser]) -> None:
    publish = add(
        commands, "publish", "put files and folders into the network", "fungistor publish ./site --name site",
        "content:publish",
    )  # fmt: skip
    publish.add_argument("paths", nargs="*", metavar="PATH", help="a file or a folder; - is stdin")
    publish.add_argument("--paths-from", metavar="FILE",
                         help="more PATHs, a line each, as a command line is too short for; - is stdin")  # fmt: skip
    publish.add_argument("--profile", choices=PROFILES, default=PROFILES[0], help="how a DAG is made of it")
    publish.add_argument("--name", help="what people call it (else the path's last part)")
    publish.add_argument(
        "--policy", default="default", help="how its shards are cut and placed: `fungistor policy list` (default)"
    )
    publish.add_argument("--wrap", action="store_true", help="one folder of all PATHs: one object, one line")
    publish.add_argument("--hidden", action="store_true", help="take names that begin with a dot, too")
    publish.add_argument("--only-hash", action="store_true", help="say the CID and store nothing; needs no network")
    publish.add_argument("--preserve-mode", action="store_true", help="keep permissions in the DAG")
    publish.add_argument("--preserve-mtime", action="store_true", help="keep modification times in the DAG")
    add_privacy(publish)
    add_tenant_option(publish)
    publish.add_argument("--expires", type=duration, metavar="D",
                         help="unpublish it after a time, such as 24h or 30d")  # fmt: skip
    publish.add_argument("--wait", action="store_true",
                         help="wait for members and catalog rather than end with exit 3")  # fmt: skip
    publish.add_argument("--wait-max", type=duration, metavar="D", help="at most so long with --wait such as 10m")

    get = add(commands, "get", "write a file or a folder of the network to disk", "fungistor get CID/docs -o docs",
               "content:get")  # fmt: skip
    _add_cid_path(get)
    get.add_argument("-o", "--output", required=True, metavar="OUT", help="the file or folder itself")
    get.add_argument("--force", action="store_true", help="replace OUT if it exists")
    get.add_argument("--no-cache", action="store_true", help="read from members only")

    cat = add(commands, "cat", "write a file of the network to stdout", "fungistor cat CID/readme.txt | less",
               "content:cat")  # fmt: skip
    _add_cid_path(cat)
    cat.add_argument("--no-cache", action="store_true", help="read from members only")

    _add_cid_path(add(commands, "ls", "list a folder of the network", "fungistor ls CID/docs", "content:ls"))
    _add_cid_path(add(commands, "stat", "say what is known of a CID", "fungistor stat CID", "content:stat"))


def _add_car(commands: Commands[Parser]) -> None:
    car = add(commands, "car", "export and import CAR files, in which DAGs travel between IPFS programs",
               "fungistor car export CID -o site.car", "")  # fmt: skip
    verbs = car.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, parser_class=Parser)
    export = add(verbs, "export", "write a DAG as a CAR file", "fungistor car export CID -o site.car", "car:export")
    _add_cid_path(export)
    export.add_argument("-o", "--output", required=True, metavar="F", help="the file; - is stdout")
    export.add_argument("--force", action="store_true", help="replace F if it exists")
    load = add(verbs, "import", "take the DAGs of CAR files into the network, an object for each root",
                "fungistor car import site.car", "car:load")  # fmt: skip
    load.add_argument("files", nargs="+", metavar="F", help="a CAR file, version 1; - is stdin")
    add_privacy(load)
    add_tenant_option(load)
    load.add_argument("--partial", action="store_true", help="accept DAGs that lack blocks")


def add_removal(commands: Commands[Parser]) -> None:
    """Add unpublish, pin and lock."""
    unpublish = add(commands, "unpublish", "take objects back, and shred what no other holds",
                     "fungistor unpublish CID", "removal:unpublish")  # fmt: skip
    unpublish.add_argument("cids", nargs="+", metavar="CID", help="the root of an object")
    add_tenant_option(unpublish)
    which = unpublish.add_mutually_exclusive_group()
    which.add_argument("--grace", type=duration, metavar="D", default=0,
                       help="how long it can be brought back, such as 90s, 30m, 24h, 7d (not at all)")  # fmt: skip
    which.add_argument("--undo", action="store_true", help="bring it back, while that time lasts")
    which.add_argument("--dry-run", action="store_true", help="say what would be shredded, and change nothing")
    collect = add(commands, "gc", "give the space of what was dropped back, on the members, too",
                   "fungistor gc --dry-run", "removal:collect")  # fmt: skip
    collect.add_argument("--grace", type=duration, metavar="D", default=duration("24h"),
                         help="leave alone what was dropped later than so long ago (24h)")  # fmt: skip
    collect.add_argument("--dry-run", action="store_true", help="say what would go, and change nothing")
    pin = add(commands, "pin", "keep objects from expiring and from being unpublished", "fungistor pin add CID", "")
    verbs = pin.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, parser_class=Parser)
    for verb, about in (("add", "pin objects"), ("remove", "let them go")):
        parser = add(verbs, verb, about, f"fungistor pin {verb} CID", "removal:pin")
        parser.add_argument("cids", nargs="+", metavar="CID", help="the root of an object")
        add_tenant_option(parser)
    add_tenant_option(add(verbs, "list", "list what is pinned or locked", "fungistor pin list", "removal:pins"))
    lock = add(commands, "lock", "keep an object from being taken away before a date; nobody lifts that early",
                "fungistor lock CID --until 2027-01-31", "removal:lock")  # fmt: skip
    lock.add_argument("cid", metavar="CID", help="the root of an object")
    add_tenant_option(lock)
    lock.add_argument("--until", type=moment, required=True, metavar="DATE",
                      help="2027-01-31 (its begin in UTC), 2027-01-31T12:00:00Z, or Unix seconds")  # fmt: skip


def _add_names(commands: Commands[Parser]) -> None:
    name = add(commands, "name", "publish, take in and list names that can come to mean something else (IPNS)",
                "fungistor name publish site CID", "")  # fmt: skip
    verbs = name.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, parser_class=Parser)
    load = add(verbs, "import", "take in a signed IPNS record as it is", "fungistor name import k51... site.record",
                "name:load")  # fmt: skip
    load.add_argument("name", metavar="KEY", help="the name that the record is signed under, in any form")
    load.add_argument("file", metavar="FILE", help="the record; - is stdin")
    add_tenant_option(
        add(verbs, "list", "list the names held, with what they mean", "fungistor name list", "name:names")
    )
    history = add(verbs, "history", "list the records of a name, newest first", "fungistor name history k51...",
                   "name:history")  # fmt: skip
    history.add_argument("name", metavar="NAME", help="a name of this network, or a key in any form")
    add_tenant_option(history)
    publish = add(verbs, "publish", "let a name mean a CID; it stays while what it means changes",
                   "fungistor name publish site CID", "name:publish")  # fmt: skip
    publish.add_argument("name", metavar="NAME", help=NAME_HELP)
    _add_cid_path(publish)
    publish.add_argument("--ttl", type=duration, metavar="D", help="for how long a record may be cached (5m)")
    publish.add_argument("--lifetime", type=duration, metavar="D", help="for how long each record holds (48h)")
    publish.add_argument("--allow-missing", action="store_true", help="also where the CID is not held by this network")
    rollback = add(verbs, "rollback", "let a name mean again what it meant before", "fungistor name rollback site",
                    "name:rollback")  # fmt: skip
    _add_name(rollback)
    rollback.add_argument("--to", type=int, metavar="N", help="the sequence of that value (the one before the newest)")
    _add_name(add(verbs, "remove", "forget a name, its values and its key", "fungistor name remove site",
                   "name:remove"))  # fmt: skip


def _add_keys(commands: Commands[Parser]) -> None:
    keys = add(commands, "keys", "list, rotate, export and recover the keys of a home", "fungistor keys list", "")
    verbs = keys.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, parser_class=Parser)
    add(verbs, "list", "say which keys there are, and where", "fungistor keys list", "keys:listed")
    rotate = add(verbs, "rotate", "wrap all keys anew under another one; the network stands still meanwhile",
                  "fungistor keys rotate", "keys:rotate")  # fmt: skip
    which = rotate.add_mutually_exclusive_group()
    which.add_argument("--tenant", type=int, metavar="N", help="the key of this tenant (0)")
    which.add_argument("--root", action="store_true", help="the root key")
    add(verbs, "renew", "take keys anew that were rotated on another machine", "fungistor keys renew", "keys:renew")
    phrase = add(verbs, "passphrase", "put the root key's file under a passphrase", "fungistor keys passphrase",
                  "keys:passphrase")  # fmt: skip
    phrase.add_argument("--new-file", metavar="F", help="a file that holds the new one (else it is asked for)")
    phrase.add_argument("--remove", action="store_true", help="under none, from now on")
    export = add(verbs, "export", "write the root key as words, or as shares of which some bring it back",
                  "fungistor keys export --shares 3/5", "keys:export")  # fmt: skip
    export.add_argument("--shares", type=_shares, metavar="K/N", help="N lines, any K of which are enough")
    export.add_argument("-o", "--output", metavar="F", help="a new file, closed to others (else stdout)")
    recover = add(verbs, "import", "bring the root key back from words or shares", "fungistor keys import words.txt",
                   "keys:recover")  # fmt: skip
    recover.add_argument("files", nargs="*", metavar="F", help="files of such lines; - or none is stdin")
    recover.add_argument("--passphrase-file", metavar="F", help="put the file under the passphrase that F holds")


def _shares(text: str) -> tuple[int, int]:
    needed, slash, count = text.partition("/")
    if not slash or not all(part.isascii() and part.isdigit() and len(part) < 4 for part in (needed, count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N, such as 3/5")
    return int(needed), int(count)


def _add_gateway(commands: Commands[Parser]) -> None:
    gateway = add(commands, "gateway", "look at how the HTTP gateway is set up", "fungistor gateway check", "")
    verbs = gateway.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, parser_class=Parser)
    check = add(verbs, "check", "print what each Host would do", "fungistor gateway check example.com",
                 "gateway:check")  # fmt: skip
    check.add_argument("hosts", nargs="*", metavar="HOST", help="Hosts to try (else those of the table)")
    check.add_argument("--gateway-hosts", metavar="F", help="the table, as `up` takes it")


def _add_network(commands: Commands[Parser]) -> None:
    add_tenant_option(add(commands, "objects", "list what is published", "fungistor objects", "network:objects"))
    verify = add(commands, "verify", "read and check every shard of an object", "fungistor verify CID",
                  "network:verify")  # fmt: skip
    which = verify.add_mutually_exclusive_group(required=True)
    which.add_argument("cid", nargs="?", metavar="CID", help="the root of an object")
    which.add_argument("--all", action="store_true", help="every object")
    add_tenant_option(verify)
    add(commands, "status", "say how members, objects and catalog are", "fungistor status", "network:status")


def _add_member(commands: Commands[Parser]) -> None:
    member = add(commands, "member", "stop, start, pause and resume members of the network that `up` runs",
                  "fungistor member stop m03 m04", "")  # fmt: skip
    verbs = member.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, parser_class=Parser)
    for verb, about in (
        ("list", "list members with their addresses, processes and states"),
        ("stop", "end members' processes; returns when their ports refuse"),
        ("start", "run members again; returns when they answer as themselves"),
        ("pause", "stop members where they stand: they accept and never answer"),
        ("resume", "let paused members go on"),
    ):
        parser = add(verbs, verb, about, f"fungistor member {verb}{'' if verb == 'list' else ' m03'}", "member:run")
        if verb != "list":
            parser.add_argument("ids", nargs="+", metavar="ID", help="such as m03")
        if verb == "start":
            parser.add_argument(
                "--reset", action="store_true", help="take a wiped member back: empty, under a new number"
            )


def _add_cid_path(parser: Parser) -> None:
    parser.add_argument("cid_path", metavar="CID[/path]", help="a CID in any form, and a path below it")
    add_tenant_option(parser)


def _add_name(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help=NAME_HELP)
    add_tenant_option(parser)


NAME_HELP = "1 to 63 of a-z, 0-9 and -"


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "": 1}
DURATION_S_MAX = 100 * 366 * 86400


def duration(text: str) -> int:
    """Read a length of time, in seconds."""
    digits = text.rstrip("smhdw")
    unit = text[len(digits) :]
    if not (digits.isascii() and digits.isdigit()) or unit not in _UNITS_S:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time, such as 90s, 30m, 24h, 7d")
    seconds = int(digits[:12]) * _UNITS_S[unit]
    if len(digits) > 12 or seconds > DURATION_S_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is more than a hundred years")
    return seconds


def moment(text: str) -> int:
    """Read a point in time, in Unix seconds."""
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text)
    try:
        said = dt.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date, such as 2027-01-31") from None
    if said.tzinfo is None:
        said = said.replace(tzinfo=dt.UTC)
    return int(said.timestamp())


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError("is not an entry's number")
    return int(text)


_WITH_VALUE = ("--home", *(option for option, _, _ in ELSEWHERE))


def find_command(words: Sequence[str]) -> int:
    """Give the place of the command in a command line; its length where there is none."""
    place = 0
    while place < len(words) and words[place].startswith("-"):
        place += 2 if words[place] in _WITH_VALUE else 1
    return min(place, len(words))
