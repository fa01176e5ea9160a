"""Recall as callers get it is among a worker's metrics."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from checked_traffic import item_id, two_snapshots

from annserve.cli.composition import opened_service
from annserve.domain.query import Mode, Query, SearchPath
from annserve.search import recall_sampler
from annserve.search.cost import CostModel
from annserve.service.metrics import Metrics
from annserve.settings import Settings
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore

CALLS = 20
K = 10
SECONDS = 20.0
GRAPH_IS_CHEAP = CostModel(exact_us=1e6)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sampled") / "snapshots"
    two_snapshots(root, 600)
    return root


def sampled(metrics: Metrics, outcome: str) -> float:
    labels = {"space": "likeness", "filtered": "no", "outcome": outcome}
    return metrics.registry.get_sample_value("annserve_recall_results_total", labels) or 0.0


async def test_searches_are_made_again_and_what_they_missed_is_counted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall_sampler, "BUSY_SHARE", 1.0)
    snapshot, metrics = load_current(SnapshotStore(root), cost=GRAPH_IS_CHEAP).snapshot, Metrics()
    async with opened_service(snapshot, Settings(recall_share=1.0), None, metrics=metrics) as served:
        for number in range(CALLS):
            query = Query(mode=Mode.SIMILAR, item_ids=(item_id(number),))
            assert (await served.recommender.recommend(query)).search_path is SearchPath.HNSW
            give_up = time.monotonic() + SECONDS
            while sampled(metrics, "found") + sampled(metrics, "missed") < (number + 1) * K:
                assert time.monotonic() < give_up
                time.sleep(0.001)

    assert sampled(metrics, "found") > 0.9 * CALLS * K
    assert snapshot.likeness.observer is snapshot.affinity.observer is None


async def test_a_share_of_nothing_observes_nothing(root: Path) -> None:
    snapshot = load_current(SnapshotStore(root), cost=GRAPH_IS_CHEAP).snapshot
    async with opened_service(snapshot, Settings(recall_share=0.0), None, metrics=Metrics()):
        assert snapshot.likeness.observer is None
