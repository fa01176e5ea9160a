from __future__ import annotations

import json

import numpy as np
import pytest
from spaces import make_points, make_queries

from annserve.domain.model import Space
from annserve.search.benchmark import benchmark_vectors


@pytest.mark.parametrize("space", list(Space))
def test_a_benchmark_reports_every_filter_and_both_ways_of_calling(space: Space) -> None:
    points = make_points(space, 1200, 8)

    report = benchmark_vectors(points.vectors, make_queries(points, 120), space, popularity=points.bias, target=0.95)

    names = [figures.filter for figures in report.filters]
    assert names[0] == "none"
    assert {"random 50.0%", "random 0.1%", "lowest-norm half", "one cluster", "best 20 excluded"} <= set(names)
    assert all(figures.complete and figures.recall >= 0.9 for figures in report.filters)
    assert [figures.calls for figures in report.direct] == ["one by one", f"batch of {report.query_count}"]
    assert all(figures.recall == pytest.approx(figures.direct_recall, abs=0.02) for figures in report.direct)
    assert json.loads(json.dumps(report.as_plain()))["point_count"] == 1200
    assert np.isfinite([figures.queries_per_second for figures in report.filters]).all()
