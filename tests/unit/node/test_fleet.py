from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fungistor.errors import ConflictError, FailedError, NotFoundError
from fungistor.ids import MemberId, MemberNumber
from fungistor.node.children import Children, wait_until
from fungistor.node.claims import ZdbClaims
from fungistor.node.fleet import Fleet, MemberWipedError
from fungistor.node.home import Home
from fungistor.node.layouts import PoolPlan
from fungistor.node.new_members import free_port, new_members
from fungistor.node.pool_file import PoolMember, load_pool
from fungistor.node.process import is_stopped, state_of
from fungistor.zdb.client import Client, Login, MemberError

WAIT_S = 20.0
COUNT = 5
M01, M02 = MemberId("m01"), MemberId("m02")


class ListRoll:
    """A roll in memory that remembers every layout it was given."""

    def __init__(self) -> None:
        self.layouts: list[dict[MemberId, MemberNumber]] = []
        self.retired = 0

    def numbers(self) -> Mapping[MemberId, MemberNumber]:
        return self.layouts[-1] if self.layouts else {}

    def next_number(self) -> MemberNumber:
        return MemberNumber(max(number for layout in self.layouts for number in layout.values()) + 1)

    def commit(self, members: Sequence[tuple[PoolMember, MemberNumber]]) -> None:
        self.layouts.append({spec.id: number for spec, number in members})
        self.weights = {spec.id: spec.weight for spec, _ in members}

    def plan(self, members: Sequence[tuple[PoolMember, MemberNumber]]) -> PoolPlan:
        return PoolPlan(len(self.layouts) + 1, len(members), len(members), (), (), 0.0, 0)

    def holders(self) -> set[MemberNumber]:
        live = self.layouts[self.retired :]
        return {number for layout in live for name, number in layout.items() if self.weights.get(name)}


def pin(member: PoolMember, number: MemberNumber) -> tuple[bytes, bytes]:
    return b"identity", f"{member.id} {number}".encode()


class World:
    """A home with its fleet, that can be closed and started again."""

    def __init__(self, root: Path) -> None:
        self.home = Home(str(root))
        self.home.prepare()
        self.roll = ListRoll()
        self.changes = 0
        self.members: Sequence[PoolMember] = new_members(COUNT)
        self.open()

    def open(self) -> None:
        self.children = Children(lambda child: None)
        self.fleet = Fleet(
            self.home,
            self.children,
            self.members,
            claims=ZdbClaims(pin),
            roll=self.roll,
            daemon_options={"no_sync": False},
            on_change=self.changed,
        )

    def changed(self) -> None:
        self.changes += 1

    def close(self) -> None:
        self.members = self.fleet.specs()
        self.fleet.close()
        self.children.close()

    def line(self, name: MemberId) -> dict[str, object]:
        return next(line for line in self.fleet.lines() if line["id"] == name)

    def states(self) -> dict[object, object]:
        return {line["id"]: line["state"] for line in self.fleet.lines()}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A started fleet of five members."""
    world = World(tmp_path / "home")
    world.fleet.start_all()
    yield world
    world.close()


def member(world: World, name: MemberId) -> PoolMember:
    return next(spec for spec in world.fleet.specs() if spec.id == name)


def pings(spec: PoolMember, number: int) -> bool:
    login = Login(spec.namespace, spec.password, pin=pin(spec, MemberNumber(number)))
    with Client(spec.address, login, timeout_s=1.0) as client:
        return bool(client.call("PING"))


def test_a_first_start_makes_all_members_and_one_layout(world: World) -> None:
    """Fresh members are up, closed by their passwords, known by their identities, and in layout 1."""
    assert set(world.states().values()) == {"up"}
    assert world.roll.layouts == [{MemberId(f"m{n:02}"): MemberNumber(n) for n in range(1, COUNT + 1)}]
    assert pings(member(world, M01), 1)
    with (
        pytest.raises(MemberError),
        Client(member(world, M01).address, Login("fungistor", "wrong"), timeout_s=1.0) as client,
    ):
        client.call("PING")
    assert load_pool(world.home.pool_file) == world.fleet.specs()


def test_a_restart_keeps_addresses_and_makes_no_layout(world: World) -> None:
    """The same members come back where they were."""
    before = world.fleet.specs()
    world.close()
    world.open()
    world.fleet.start_all()
    assert world.fleet.specs() == before
    assert len(world.roll.layouts) == 1
    assert set(world.states().values()) == {"up"}


def test_a_taken_port_moves_the_member(world: World) -> None:
    """A member whose port somebody else took comes up on another, which the pool file then has."""
    world.close()
    port = int(world.members[0].address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        world.open()
        world.fleet.start_all()
    assert world.states()[M01] == "up"
    moved = load_pool(world.home.pool_file)[0].address
    assert moved != f"127.0.0.1:{port}"
    assert pings(member(world, M01), 1)


def test_stop_returns_when_the_port_refuses_and_start_when_it_answers(world: World) -> None:
    """`member stop` and `member start` return when it is so."""
    spec = member(world, M01)
    pid = world.line(M01)["pid"]
    line = world.fleet.stop(M01)
    assert (line["state"], line["pid"]) == ("down", None)
    assert isinstance(pid, int)
    assert state_of(pid) is None
    with pytest.raises(MemberError):
        pings(spec, 1)
    assert world.fleet.stop(M01)["state"] == "down"
    assert world.fleet.start(M01)["state"] == "up"
    assert pings(member(world, M01), 1)
    assert world.fleet.start(M01)["state"] == "up"


def test_a_paused_member_accepts_and_never_answers(world: World) -> None:
    """`member pause` stops every thread of the process; resume and start both let it go on."""
    spec = member(world, M01)
    line = world.fleet.pause(M01)
    assert line["state"] == "paused"
    assert isinstance(line["pid"], int)
    assert is_stopped(line["pid"])
    with socket.create_connection(("127.0.0.1", int(spec.address.rpartition(":")[2])), 1.0) as connection:
        connection.sendall(b"PING\r\n")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    assert world.fleet.resume(M01)["state"] == "up"
    assert pings(spec, 1)
    world.fleet.pause(M01)
    assert world.fleet.start(M01)["state"] == "up"
    assert world.fleet.resume(M01)["state"] == "up"


def test_what_does_not_run_is_neither_paused_nor_resumed(world: World) -> None:
    """Pausing a stopped member is an error that says how to start it."""
    world.fleet.stop(M01)
    for verb in (world.fleet.pause, world.fleet.resume):
        with pytest.raises(FailedError, match="not running") as refused:
            verb(M01)
        assert "member start m01" in refused.value.hint


def test_an_unknown_member_is_not_found(world: World) -> None:
    """A name that is no member's ends with exit 4 and says what they are called."""
    with pytest.raises(NotFoundError) as missing:
        world.fleet.find("m99")
    assert "m01" in missing.value.hint
    assert "m05" in missing.value.hint


def test_a_wiped_member_stays_down_until_it_is_reset_under_a_new_number(world: World) -> None:
    """A wiped folder is noticed at start; only --reset takes it back, as a member that holds nothing."""
    world.fleet.stop(M01)
    shutil.rmtree(world.home.member_folder(M01))
    with pytest.raises(MemberWipedError) as wiped:
        world.fleet.start(M01)
    assert wiped.value.exit_code == 6
    assert "--reset m01" in wiped.value.hint
    line = world.line(M01)
    assert (line["state"], line["reason"], line["pid"]) == ("down", "wiped", None)
    world.fleet.mend()
    assert world.line(M01)["reason"] == "wiped"
    line = world.fleet.start(M01, reset=True)
    assert (line["state"], line["number"]) == ("up", COUNT + 1)
    assert world.roll.layouts[-1][M01] == COUNT + 1
    assert world.roll.layouts[-1][M02] == 2
    assert pings(member(world, M01), COUNT + 1)
    assert world.changes == 1


def test_two_resets_at_once_draw_two_numbers(world: World) -> None:
    """Members that are reset together become two new members, in two layouts."""
    for name in (M01, M02):
        world.fleet.stop(name)
        shutil.rmtree(world.home.member_folder(name))
    with ThreadPoolExecutor() as pool:
        lines = list(pool.map(lambda name: world.fleet.start(name, reset=True), (M01, M02)))
    assert sorted(int(str(line["number"])) for line in lines) == [COUNT + 1, COUNT + 2]
    assert len(world.roll.layouts) == 3


def test_a_member_wiped_while_nothing_ran_is_noticed(world: World) -> None:
    """`up` on a home with a wiped member comes up, with that member down."""
    world.close()
    shutil.rmtree(world.home.member_folder(M01))
    world.open()
    world.fleet.start_all()
    assert world.line(M01)["reason"] == "wiped"
    assert sorted(map(str, world.states().values())) == ["down", "up", "up", "up", "up"]


def test_swapped_folders_are_noticed(world: World) -> None:
    """Two members whose folders were exchanged are not trusted, though both hold a namespace."""
    world.close()
    one, two = (world.home.member_folder(name) for name in (M01, M02))
    os.rename(one, one + "x")
    os.rename(two, one)
    os.rename(one + "x", two)
    world.open()
    world.fleet.start_all()
    assert (world.line(M01)["reason"], world.line(M02)["reason"]) == ("wiped", "wiped")


def test_a_healthy_member_is_not_reset(world: World) -> None:
    """--reset on a member that holds its shards is refused: it would throw them away."""
    with pytest.raises(ConflictError, match="not wiped"):
        world.fleet.start(M01, reset=True)
    world.fleet.stop(M01)
    with pytest.raises(ConflictError, match="not wiped"):
        world.fleet.start(M01, reset=True)
    assert len(world.roll.layouts) == 1


def test_a_folder_that_cannot_be_opened_is_a_member_down(world: World) -> None:
    """One bad folder does not keep the others from coming up."""
    world.close()
    folder = Path(world.home.member_folder(M01))
    folder.rename(folder.with_name("aside"))
    folder.write_text("in the way")
    world.open()
    world.fleet.start_all()
    assert world.line(M01)["state"] == "down"
    assert world.line(M01)["reason"]
    assert world.states()[M02] == "up"


def test_a_member_that_dies_is_started_again(world: World) -> None:
    """kill -9 of a member's process: it is back, as itself, without anybody asking."""
    pid = world.line(M01)["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: world.states()[M01] == "down", WAIT_S)

    def mended() -> bool:
        world.fleet.mend()
        return world.states()[M01] == "up"

    assert wait_until(mended, WAIT_S, 0.05)
    assert world.line(M01)["pid"] != pid
    assert pings(member(world, M01), 1)


def test_a_stopped_member_is_not_started_by_mending(world: World) -> None:
    """What was stopped by hand stays stopped."""
    world.fleet.stop(M01)
    world.fleet.mend()
    assert world.line(M01)["reason"] == "stopped by hand"


def test_a_first_layout_needs_all_its_members(tmp_path: Path) -> None:
    """A new network whose member does not start commits no layout, and the next start can."""
    world = World(tmp_path / "home")
    try:
        bad = Path(world.home.member_folder(M01))
        bad.write_text("in the way")
        with pytest.raises(FailedError, match="m01"):
            world.fleet.start_all()
        assert world.roll.layouts == []
        bad.unlink()
        world.close()
        world.open()
        world.fleet.start_all()
        assert len(world.roll.layouts) == 1
    finally:
        world.close()


def test_ports_are_not_those_of_outgoing_connections() -> None:
    """A member's port is never one that the system gives to a client, which could then connect to itself there."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port() < low for _ in range(20)) or low <= 20_200


def test_new_members_differ_in_everything_that_matters() -> None:
    """Ids, addresses and passwords of a new network are all distinct."""
    members = new_members(20)
    assert len({one.id for one in members}) == len({one.address for one in members}) == 20
    assert len({one.password for one in members}) == 20
    assert members[0] == replace(members[0], namespace="fungistor", durable=True)


def test_members_are_taken_in_drained_and_let_go(world: World) -> None:
    """A new member runs under a number of its own; one goes only when it holds nothing, or is lost."""
    [spec] = new_members(1, after=COUNT)
    world.fleet.enlist([spec], dry_run=True)
    assert (len(world.fleet.ids()), len(world.roll.layouts)) == (COUNT, 1)
    world.fleet.enlist([spec], dry_run=False)
    name = MemberId("m06")
    assert (world.line(name)["state"], world.line(name)["number"]) == ("up", COUNT + 1)
    assert load_pool(world.home.pool_file) == world.fleet.specs()
    with pytest.raises(ConflictError, match="may still hold shards"):
        world.fleet.dismiss([M01], lost=False, dry_run=False)
    with pytest.raises(ConflictError, match="is not lost"):
        world.fleet.dismiss([M01], lost=True, dry_run=False)
    world.fleet.relabel([M01], lambda member: replace(member, weight=0), dry_run=False)
    address = member(world, M01).address
    world.fleet.dismiss([M01], lost=False, dry_run=False)
    assert M01 not in world.fleet.ids()
    assert M01 not in {member.id for member in load_pool(world.home.pool_file)}
    assert not port_answers(address)
    world.fleet.stop(M02)
    world.fleet.dismiss([M02], lost=True, dry_run=False)
    assert world.roll.layouts[-1] == {MemberId(f"m{n:02}"): MemberNumber(n) for n in range(3, COUNT + 2)}
    assert world.changes == 4


def port_answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
