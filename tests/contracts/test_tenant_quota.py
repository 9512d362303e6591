"""Tenants on both engines: eight publishers at once never pass a quota, and every node counts alike."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Publish
from fungistor.catalog.engines.etcd import EtcdLog
from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.log import Log
from fungistor.catalog.outcomes import Outcome
from fungistor.catalog.record import Sizes
from fungistor.catalog.removal import Unpublish
from fungistor.catalog.rules import Verdict
from fungistor.catalog.state import State
from fungistor.catalog.tenants import AddTenant, AddToken, ChangeTenant, RevokeToken, TokenScope
from fungistor.errors import ConflictError
from fungistor.ids import TenantNumber
from tests.contracts.etcd_world import etcd_cluster
from tests.unit.catalog.samples import command, drawn, record

MUSEUM = TenantNumber(1)
PUBLISHERS, EACH, SIZE = 8, 12, 100
BYTES_MAX, OBJECTS_MAX = 3_050, 40

OpenLog = Callable[[], Log]


@pytest.fixture(params=["sqlite", "etcd"])
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenLog]:
    """Opens a handle on one log."""
    opened: list[Log] = []

    def kept(log: Log) -> Log:
        opened.append(log)
        return log

    if request.param == "sqlite":
        yield lambda: kept(SqliteLog(str(tmp_path / "log.db"), sync=False))
    else:
        with etcd_cluster(tmp_path / "etcd", 1) as cluster:
            cluster.wait_ready()
            yield lambda: kept(EtcdLog(cluster.address("net")))
    for log in opened:
        log.close()


def test_eight_publishers_at_once_never_pass_a_quota(open_log: OpenLog, tmp_path: Path) -> None:
    """Each node found room before; as many are applied as fit, the rest are denied, and all nodes agree on which."""
    nodes = [Catalog(open_log(), State(str(tmp_path / f"node {n}.db"))) for n in range(PUBLISHERS)]
    nodes[0].commit(command(AddTenant(MUSEUM, "museum", BYTES_MAX, OBJECTS_MAX, 1)))
    ready = threading.Barrier(PUBLISHERS)
    outcomes: list[list[Outcome]] = [[] for _ in nodes]

    def publish(number: int) -> None:
        node = nodes[number]
        node.catch_up()
        assert not node.tenants.why_no_room(MUSEUM, SIZE, 1)
        ready.wait()
        for at in range(EACH):
            made = record(EACH * number + at, tenant=MUSEUM, sizes=Sizes(SIZE, SIZE, 2 * SIZE, 1, 1))
            outcomes[number] += node.commit_all([command(Publish(made))])

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(PUBLISHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdicts = [outcome.verdict for each in outcomes for outcome in each]
    fit = BYTES_MAX // SIZE
    assert verdicts.count(Verdict.APPLIED) == fit
    assert verdicts.count(Verdict.DENIED) == PUBLISHERS * EACH - fit
    late = Catalog(open_log(), State(str(tmp_path / "late.db")))
    states = [*nodes, late]
    for node in states:
        node.catch_up()
        assert node.tenants.usage(MUSEUM).bytes == fit * SIZE <= BYTES_MAX
        assert node.tenants.usage_anew()[MUSEUM] == node.tenants.usage(MUSEUM)
    assert len({node._state.fingerprint() for node in states}) == 1
    taken = next(iter(nodes[0].records()))
    nodes[0].commit(command(Unpublish(taken.object_id, taken.manifest_id, 9)))
    again = record(999, tenant=MUSEUM, sizes=Sizes(SIZE, SIZE, 2 * SIZE, 1, 1))
    assert nodes[1].commit(command(Publish(again))).verdict is Verdict.APPLIED
    for node in states:
        node.close()


def test_what_is_said_again_brings_nothing_back_on_any_engine(open_log: OpenLog, tmp_path: Path) -> None:
    """Entries of the log appended once more, as by whoever runs the engine: quota, epoch, tokens stay as they are."""
    log = open_log()
    node = Catalog(log, State(str(tmp_path / "node.db")))
    token = AddToken(drawn("token", 8), MUSEUM, drawn("digest"), TokenScope.READ, "press", None, 7)
    for body in (
        AddTenant(MUSEUM, "museum", None, None, 1),
        ChangeTenant(MUSEUM, 1, "museum", 1000, None, 1),
        ChangeTenant(MUSEUM, 2, "museum", 10, None, 2),
        token,
        RevokeToken(token.id, MUSEUM),
    ):
        node.commit(command(body))
    before = node.tenants.tenant(MUSEUM)
    with node._state._database.write() as sql:
        sql.execute("DELETE FROM outcome")  # as after 65,536 other commands
    for entry in list(log.read(log.trimmed())):
        log.append(log.epoch(), [entry.payload])
    node.catch_up()
    assert node.tenants.tenant(MUSEUM) == before
    found = node.tenants.token(token.id)
    assert found is not None
    assert found.revoked
    with pytest.raises(ConflictError):
        node.commit(command(ChangeTenant(MUSEUM, 1, "museum", 1000, None, 2)))
    node.close()
