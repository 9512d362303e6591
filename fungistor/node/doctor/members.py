"""Members and clocks: who answers as itself, what it speaks, whether it syncs, and what time it has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fungistor.errors import FungiStorError
from fungistor.node.doctor.finding import Finding, bad, good, unknown
from fungistor.node.pool_file import PoolMember
from fungistor.objects.results import MemberLine
from fungistor.zdb.client import Client, Login
from fungistor.zdb.daemon.format import DATA_VERSION, INDEX_VERSION

AREA, CLOCKS = "members", "clocks"
ASK_S = 3.0
ASKED_AT_ONCE = 16
SKEW_S_MAX = 5.0
"""Names' records, expiry and signed links are compared with clocks; five seconds harm none of them."""

YEAR_2024_S = 1_704_067_200.0


@dataclass(frozen=True, slots=True)
class Told:
    """What one member says of itself. `skew_s`: its clock minus ours, as far as the round trip tells."""

    id: str
    info: dict[str, str]
    skew_s: float | None


def look_at_members(lines: Sequence[MemberLine], told: Sequence[Told]) -> Iterator[Finding]:
    """States by the probes, versions and durability by the members' own words."""
    hints = {"paused": "`fungistor member resume {}`", "down": "`fungistor member start {}`; its log says why it ended"}
    for line in lines:
        if line.state in hints:
            wiped = "wiped" in line.reason
            step = "`fungistor member start --reset {}` takes it back empty" if wiped else hints[line.state]
            yield bad(
                AREA,
                f"{line.id} is {line.state} {f'({line.reason})' if line.reason else ''}".strip(),
                step.format(line.id),
            )
    up = sum(line.state not in hints for line in lines)
    if up == len(lines):
        yield good(AREA, f"all {up} answer")
    newer = [one.id for one in told if _version(one) > (DATA_VERSION, INDEX_VERSION)]
    if newer:
        yield bad(AREA, f"{', '.join(newer)} write a newer format than this program knows", "update fungistor here")
    unsynced = [one.id for one in told if one.info.get("durability") in ("none", "no-sync", "off")]
    if unsynced:
        yield bad(
            AREA,
            f"{', '.join(unsynced)} wait for no disk: a power cut takes what they acknowledged",
            "start without --no-sync",
        )


def _version(told: Told) -> tuple[int, int]:
    data, index = (told.info.get(name, "0") for name in ("data_version", "index_version"))
    return (int(data) if data.isdigit() else 0, int(index) if index.isdigit() else 0)


def look_at_clocks(told: Sequence[Told], newest_s: float | None, now_s: float) -> Iterator[Finding]:
    """This clock against members' and against what was published."""
    if now_s < YEAR_2024_S:
        yield bad(
            CLOCKS, f"this machine's clock says {time.strftime('%Y-%m-%d', time.gmtime(now_s))}", "set it, by NTP"
        )
    if newest_s is not None and newest_s - now_s > SKEW_S_MAX:
        yield bad(
            CLOCKS,
            f"something was committed {newest_s - now_s:.0f} s in the future of this clock",
            "this clock is behind, or a publisher's was ahead: set both by NTP",
        )
    skews = [(one.id, one.skew_s) for one in told if one.skew_s is not None]
    far = [(name, skew_s) for name, skew_s in skews if abs(skew_s) > SKEW_S_MAX]
    for name, skew_s in far:
        yield bad(CLOCKS, f"the clock of {name} differs by {skew_s:+.0f} s from this one", "run NTP on both machines")
    if skews and not far:
        widest = max(abs(skew_s) for _, skew_s in skews)
        yield good(CLOCKS, f"{len(skews)} members' clocks are within {widest:.1f} s of this one")
    if not skews:
        yield unknown(CLOCKS, "no member tells its time, so this clock is compared with none")


def ask_members(members: Sequence[PoolMember], clock: Callable[[], float] = time.time) -> list[Told]:
    """Ask every member for its words and its time; those that are silent are left out."""
    with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
        return [told for told in threads.map(lambda member: _ask(member, clock), members) if told is not None]


def _ask(member: PoolMember, clock: Callable[[], float]) -> Told | None:
    login = Login(namespace=member.namespace, password=member.password, tls=member.trust)
    try:
        with Client(member.address, login, timeout_s=ASK_S) as client:
            return Told(member.id, _info(client), _skew(client, clock))
    except FungiStorError:
        return None  # its state says so


def _info(client: Client) -> dict[str, str]:
    said = client.call("INFO")
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else ""
    return {key: value for key, _, value in (line.partition(": ") for line in text.splitlines())}


def _skew(client: Client, clock: Callable[[], float]) -> float | None:
    before = clock()
    said = client.call("TIME")
    after = clock()
    if not isinstance(said, list) or len(said) != 2:
        return None
    try:
        theirs = int(bytes(said[0])) + int(bytes(said[1])) / 1e6  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    # Within the round trip nobody can tell.
    return max(0.0, theirs - after) or min(0.0, theirs - before)
