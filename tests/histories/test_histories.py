"""Histories of concurrent publishers under faults are linearizable: nothing lost, nothing half, nothing twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.etcd_world import EtcdCluster, etcd_cluster
from tests.histories.campaign import checked


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with etcd_cluster(tmp_path_factory.mktemp("etcd"), 3) as cluster:
        cluster.wait_ready()
        yield cluster


def test_a_short_history_under_faults(etcd: EtcdCluster, tmp_path: Path) -> None:
    """A few seconds of it, from a seed."""
    done, _ = checked(etcd, tmp_path / "run", 7, 6.0)
    assert done


@pytest.mark.soak
def test_histories_under_faults(etcd: EtcdCluster, tmp_path: Path) -> None:
    """200 runs, each from its own seed (HISTORY_RUNS and HISTORY_SEED name others)."""
    runs, first = int(os.environ.get("HISTORY_RUNS", "200")), int(os.environ.get("HISTORY_SEED", "1000"))
    acknowledged = doubtful = 0
    for seed in range(first, first + runs):
        done, left = checked(etcd, tmp_path / str(seed), seed, 4.0)
        acknowledged, doubtful = acknowledged + done, doubtful + left
        shutil.rmtree(tmp_path / str(seed))
    assert acknowledged > runs
    print(
        f"{runs} histories from seed {first}: {acknowledged} publishes acknowledged, {doubtful} in doubt, all in order"
    )
