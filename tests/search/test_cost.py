from __future__ import annotations

import numpy as np
import pytest
from spaces import RECIPE, Built

from annserve.search.cost import CostModel
from annserve.search.graph import Graph
from annserve.search.points import Points


def test_a_measured_model_is_finite_and_grows_with_work(affinity: Built) -> None:
    cost = CostModel.measure(affinity.points, affinity.graph)

    assert 0 < cost.graph(60, 10) <= cost.graph(600, 10) <= cost.graph(600, 600) < 1e5
    assert 0 < cost.scan(1) < cost.scan(100_000) <= cost.gather(100_000) < 1e7


@pytest.mark.parametrize("count", [1, 2, 30])
def test_the_smallest_spaces_can_be_measured(count: int) -> None:
    points = Points(vectors=np.ones((count, 3), np.float32))

    assert CostModel.measure(points, None).graph_us == 0
    assert np.isfinite(CostModel.measure(points, Graph.build(points, RECIPE)).graph(60, 10))
