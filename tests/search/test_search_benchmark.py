from __future__ import annotations

import json

import numpy as np
import pytest
from spaces import GRAPH_IS_CHEAP, make_points, make_queries

from annserve.domain.model import Space
from annserve.search.bands import measure_bands
from annserve.search.benchmark import benchmark_index, benchmark_vectors
from annserve.search.cost import CostModel
from annserve.search.graph import Graph
from annserve.search.index import SpaceIndex
from annserve.search.recipe import Recipe, Reduction


@pytest.mark.parametrize("space", list(Space))
def test_a_benchmark_reports_every_filter_and_both_ways_of_calling(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of so few points a scan takes about as long, and finds more than the graph that is compared with itself here.
    monkeypatch.setattr(CostModel, "measure", lambda *_: GRAPH_IS_CHEAP)
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


def test_a_seed_that_is_found_again_does_not_count() -> None:
    points = make_points(Space.LIKENESS, 1200, 8)
    own_rows = np.arange(0, 1200, 8)
    queries = points.matrix(own_rows)
    recipe = Recipe(reduction=Reduction.INNER_PRODUCT, m=4, ef_construction=10, ef_search=12)
    graph = Graph.build(points, recipe)
    bands = measure_bands(points, graph, queries)
    index = SpaceIndex(points, graph, bands=bands, cost=GRAPH_IS_CHEAP, recall_target=0.1)

    report = benchmark_index(index, queries, own_rows)

    found = index.search_batch(queries, 11)[0]
    exact = np.argsort(-points.scores_batch(queries), axis=1)
    shares = [
        np.isin(best[best != own][:10], rows[rows != own][:10]).mean()
        for own, best, rows in zip(own_rows, exact, found, strict=True)
    ]
    assert report.direct[0].recall == report.filters[0].recall == pytest.approx(np.mean(shares), abs=2e-3)
    assert np.mean(shares) < 0.99
    assert all(figures.complete for figures in report.filters)
