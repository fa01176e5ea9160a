from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from spaces import RECIPE, Built

from annserve.domain.arrays import Vectors
from annserve.search import cost
from annserve.search.cost import CostModel
from annserve.search.graph import Graph
from annserve.search.points import Points


def test_a_measured_model_is_finite_and_grows_with_work(affinity: Built) -> None:
    model = CostModel.measure(affinity.points, affinity.graph)

    assert 0 < model.graph(60, 10) <= model.graph(600, 10) <= model.graph(600, 600) < 1e5
    assert 0 < model.scan(1) < model.scan(100_000) <= model.gather(100_000) < 1e7


def test_rows_beyond_the_caches_cost_what_they_were_measured_at(
    affinity: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_us = 0.0

    def scan(_points: Points, _query: Vectors, rows: int) -> None:
        nonlocal now_us
        now_us += 10 + min(rows, 1_000) + 3 * max(rows - 1_000, 0)

    monkeypatch.setattr(cost, "_NEAR_ROWS", 1_000)
    monkeypatch.setattr(cost, "_scan", scan)
    monkeypatch.setattr(cost, "time", SimpleNamespace(thread_time=lambda: now_us / 1e6))

    model = CostModel.measure(affinity.points, None)

    assert model.scan(500) == pytest.approx(510, rel=0.01)
    assert model.scan(10_000) == pytest.approx(10 + 1_000 + 27_000, rel=0.01)


@pytest.mark.parametrize("count", [1, 2, 30])
def test_the_smallest_spaces_can_be_measured(count: int) -> None:
    points = Points(vectors=np.ones((count, 3), np.float32))

    assert CostModel.measure(points, None).graph_us == 0
    assert np.isfinite(CostModel.measure(points, Graph.build(points, RECIPE)).graph(60, 10))
