from __future__ import annotations

import numpy as np
import pytest
from spaces import RECIPE, Built, make_points, make_queries

from annserve.domain.model import Space
from annserve.search.bands import BAND_COUNT, Bands, band_edges, measure_bands
from annserve.search.graph import Graph
from annserve.search.points import Points
from annserve.search.recall import found_of, recall_of, without_own


def test_bands_hold_equal_shares_of_the_points(affinity: Built) -> None:
    sizes = np.bincount(affinity.bands.of(affinity.points.norms()))

    assert len(sizes) == BAND_COUNT
    assert sizes.max() - sizes.min() <= 2


def test_points_of_one_length_are_one_band() -> None:
    norms = Points.likeness(make_points(Space.LIKENESS, 100, 8).vectors, 1.0).norms()

    assert band_edges(norms) == ()
    assert set(Bands(edges=(), levels=()).of(norms).tolist()) == {0}


def test_longer_lists_recall_more_and_deeper_ranks_less(built: Built) -> None:
    recalls = {(level.depth, level.ef_search): level.recall for level in built.bands.levels}
    lists = sorted({ef_search for _, ef_search in recalls})

    assert recalls[10, lists[-1]] >= recalls[10, lists[0]]
    assert recalls[10, lists[0]] >= recalls[40, lists[0]]
    for level in built.bands.levels:
        assert sum(level.hit_shares) == pytest.approx(1.0, abs=1e-4)


def test_short_vectors_of_wild_norms_are_seen_to_be_reached_badly() -> None:
    points = make_points(Space.AFFINITY, 3000, 16, spread=1.2)
    graph = Graph.build(points, RECIPE)

    bands = measure_bands(points, graph, make_queries(points, 100))

    deepest = [level for level in bands.levels if level.ef_search == RECIPE.ef_search][-1]
    assert deepest.hit_shares[-1] > deepest.hit_shares[4]
    assert deepest.recalls[-1] > deepest.recalls[4] + 0.05


def test_a_querys_own_row_counts_neither_for_nor_against() -> None:
    points = Points.likeness(make_points(Space.LIKENESS, 1000, 8).vectors, 1.0)
    graph = Graph.build(points, RECIPE)
    own_rows = np.arange(50)

    bands = measure_bands(points, graph, points.matrix(own_rows), own_rows=own_rows)

    assert bands.levels[0].depth == 10
    assert bands.levels[0].recall >= 0.97


def test_own_rows_are_taken_out_wherever_they_rank() -> None:
    rows = np.array([[4, 2, 7], [1, 2, 3], [5, 6, 9]])

    assert without_own(rows, np.array([2, 1, -1]), 2).tolist() == [[4, 7], [2, 3], [5, 6]]
    assert without_own(rows, None, 2).tolist() == [[4, 2], [1, 2], [5, 6]]


def test_found_of_compares_each_query_with_its_own_rows() -> None:
    hits = found_of(np.array([[0, 1], [0, 1]]), np.array([[1, 5], [7, 8]]), 10)

    assert hits.tolist() == [[False, True], [False, False]]


def test_recall_forgives_a_choice_among_equals_but_no_worse_row() -> None:
    points = Points(vectors=np.array([[3], [2], [2], [2], [1]], np.float32))
    query = np.ones((1, 1), np.float32)
    exact = np.array([[0, 1]])

    assert recall_of(points, query, exact, np.array([[0, 3]])) == 1.0
    assert recall_of(points, query, exact, np.array([[0, 4]])) == 0.5
