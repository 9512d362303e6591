"""The grammar of what is asked of the pool: members, policies, repair."""

from __future__ import annotations

import argparse

from fungistor.node.cli.grammar import Commands, Parser, add, count


def add_pool(commands: Commands[Parser]) -> None:
    """Add pool and repair."""
    pool = add(commands, "pool", "say who holds shards: take members in, drain and dismiss them",
                "fungistor pool add --count 2", "")  # fmt: skip
    verbs = pool.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, parser_class=Parser)
    add(verbs, "list", "list members with their shares", "fungistor pool list", "repair:members")
    for verb, about, example in (
        ("add", "start new members on this machine and give them shards", "fungistor pool add --count 2 --dry-run"),
        ("drain", "let members take no more shards, and move away what they have", "fungistor pool drain m07"),
        ("remove", "dismiss members that hold nothing any more", "fungistor pool remove m07"),
        ("label", "give members another zone, weight or capacity", "fungistor pool label m07 --weight 2"),
    ):
        parser = add(verbs, verb, about, example, "repair:change")
        parser.add_argument("--dry-run", action="store_true", help="say what would move, and change nothing")
        if verb == "add":
            parser.add_argument("--count", type=count, default=1, metavar="N", help="how many (1)")
            continue
        parser.add_argument("ids", nargs="+", metavar="ID", help="such as m03")
        if verb == "remove":
            parser.add_argument("--lost", action="store_true", help="they are gone for ever, with all they held")
        if verb == "label":
            parser.add_argument("--zone", metavar="Z", help="country/site/host/disk: what dies together")
            parser.add_argument("--weight", type=int, metavar="N", help="its share beside others'; 0 takes none")
            parser.add_argument("--capacity", type=int, metavar="BYTES", help="how much it may hold")
    apply = add(verbs, "apply", "make the pool what a pool file says: a plan first, with --yes for real",
                 "fungistor pool apply pool.toml", "apply:run")  # fmt: skip
    apply.add_argument("file", metavar="FILE", help="one table a member; weight 0 drains one")
    apply.add_argument("--yes", action="store_true", help="do it")
    apply.add_argument("--lost", action="store_true", help="members that the file leaves out are gone for ever")
    export = add(verbs, "export", "write the members as a pool file, with their passwords",
                  "fungistor pool export -o pool.toml", "pool:export")  # fmt: skip
    export.add_argument("-o", "--output", required=True, metavar="FILE", help="the file, mode 0600; - is stdout")
    export.add_argument("--force", action="store_true", help="replace FILE if it exists")
    repair = add(commands, "repair", "bring every shard where the newest layout wants it", "fungistor repair",
                  "repair:repair")  # fmt: skip
    repair.add_argument("--rate", type=_rate, metavar="MB/S", help="move no more than that (no bound)")
    repair.add_argument("--quick", action="store_true",
                        help="see only whether shards are there: no member reads its disk")  # fmt: skip
    repair.add_argument("--grace", type=_seconds, default=600, metavar="S",
                        help="copies where a retired layout wanted them stay so many seconds (600)")  # fmt: skip


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of MB a second, from 0.001")
    return rate


def add_policy(commands: Commands[Parser]) -> None:
    """Add policy."""
    policy = add(commands, "policy", "say by which rules objects are stored: how many shards, what they survive, where",
                 "fungistor policy add eu --k 8 --m 4 --survive 1/site --region de --region nl", "")  # fmt: skip
    verbs = policy.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, parser_class=Parser)
    made = add(verbs, "add", "make a policy; `publish --policy NAME` goes by it",
               "fungistor policy add sites --k 6 --m 4 --survive 1/site", "policy:make")  # fmt: skip
    made.add_argument("name", metavar="NAME", help="up to 32 of a-z, 0-9, dot, - and _")
    made.add_argument("--k", type=int, default=16, metavar="N", help="shards that bring a stripe back (16)")
    made.add_argument("--m", type=int, default=4, metavar="N", help="shards more: so many members may die (4)")
    made.add_argument("--min-shard", type=int, default=4096, metavar="BYTES",
                      help="small stripes are cut no finer than that (4096)")  # fmt: skip
    made.add_argument("--survive", metavar="N/LEVEL", default="",
                      help="so many whole zones may die, such as 1/site (of country, site, host, disk)")  # fmt: skip
    made.add_argument("--region", action="append", default=[], metavar="ZONE",
                      help="shards lie there only, such as de or nl/ams; again for more")  # fmt: skip
    made.add_argument("--dry-run", action="store_true", help="say whether the members can meet it, and change nothing")
    add(verbs, "list", "list policies", "fungistor policy list", "policy:listed")
    show = add(
        verbs, "show", "show what a policy says, and what is stored by it", "fungistor policy show eu", "policy:show"
    )
    gone = add(verbs, "remove", "forget a policy that nothing is stored by", "fungistor policy remove eu",
               "policy:remove")  # fmt: skip
    for parser in (show, gone):
        parser.add_argument("name", metavar="NAME", help="the policy")
