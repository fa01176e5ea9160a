from __future__ import annotations

import gc
import math
import multiprocessing
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spaces import GRAPH_IS_CHEAP, GRAPH_IS_DEAR, RECIPE, Built, make_points, make_queries, ranked

from annserve.domain.arrays import Rows, Vectors
from annserve.domain.deadline import Deadline
from annserve.domain.errors import DeadlineExceededError, InvalidArgumentError
from annserve.domain.model import Space
from annserve.domain.query import SearchPath
from annserve.search import exact
from annserve.search.bands import measure_bands
from annserve.search.cost import CostModel
from annserve.search.graph import Graph
from annserve.search.index import LongScanError, SearchResult, SpaceIndex
from annserve.search.points import Points
from annserve.search.restriction import Restriction

COUNT = 3000
COSTS = pytest.mark.parametrize("cost", [GRAPH_IS_CHEAP, GRAPH_IS_DEAR], ids=["graph", "exact"])


def overlap(index: SpaceIndex, results: list[SearchResult], queries: Vectors, allowed: Rows | None = None) -> float:
    """Return the mean share of the exact results that was found."""
    shares = []
    for result, query in zip(results, queries, strict=True):
        expected = ranked(index.points, query, allowed)[0][: len(result.rows)]
        shares.append(np.isin(expected, result.rows).mean())
    return float(np.mean(shares))


def assert_well_formed(index: SpaceIndex, result: SearchResult, query: Vectors, k: int, allowed: Rows) -> None:
    """Assert a complete answer: as many as there are, allowed, distinct, best first, with their exact scores."""
    assert result.eligible_count == len(allowed)
    assert len(result.rows) == len(result.scores) == min(k, len(allowed))
    assert np.isin(result.rows, allowed).all()
    assert len(np.unique(result.rows)) == len(result.rows)
    assert (np.diff(result.scores) <= 0).all()
    assert result.rows.dtype == np.int64
    assert result.scores.dtype == np.float32
    np.testing.assert_allclose(result.scores, index.points.scores(query, result.rows), rtol=1e-4, atol=1e-5)


def test_the_graph_answers_at_the_recall_it_was_measured_at(built: Built) -> None:
    index = built.index()

    results = [index.search(query, 10) for query in built.queries]

    assert {result.path for result in results} == {SearchPath.HNSW}
    assert overlap(index, results, built.queries) >= 0.97
    for result, query in zip(results, built.queries, strict=True):
        assert_well_formed(index, result, query, 10, np.arange(COUNT))


@COSTS
@pytest.mark.parametrize("selectivity", [1.0, 0.9, 0.5, 0.1, 0.01, 0.001])
def test_answers_are_complete_and_right_at_every_selectivity(
    built: Built, random: np.random.Generator, cost: CostModel, selectivity: float
) -> None:
    index = built.index(cost)
    allowed = np.sort(random.choice(COUNT, round(COUNT * selectivity), replace=False))
    restriction = Restriction(allowed, COUNT)

    results = [index.search(query, 10, restriction=restriction) for query in built.queries]

    assert overlap(index, results, built.queries, allowed) >= 0.95
    for result, query in zip(results, built.queries, strict=True):
        assert_well_formed(index, result, query, 10, allowed)


def test_a_filter_that_keeps_most_is_answered_by_the_graph(built: Built) -> None:
    restriction = Restriction(np.arange(0, COUNT, 2), COUNT)
    index = built.index()

    paths = [index.search(query, 5, restriction=restriction).path for query in built.queries]

    assert paths.count(SearchPath.HNSW) >= 0.8 * len(paths)


def test_rows_a_graph_reaches_badly_are_left_to_exact_search() -> None:
    """The lower half by norm: over-fetching would fill the answer, at a recall far below the promise."""
    points = make_points(Space.AFFINITY, COUNT, 16, spread=1.2)
    graph = Graph.build(points, RECIPE)
    queries = make_queries(points, 150)
    index = SpaceIndex(points, graph, bands=measure_bands(points, graph, queries[:100]), cost=GRAPH_IS_CHEAP)
    shortest = np.argsort(points.norms())[: COUNT // 2]

    results = [index.search(query, 10, restriction=Restriction(shortest, COUNT)) for query in queries[100:]]

    assert {result.path for result in results} == {SearchPath.EXACT}
    assert overlap(index, results, queries[100:], shortest) == 1.0


def test_a_filter_far_from_the_query_is_still_filled(built: Built) -> None:
    index = built.index()
    for query in built.queries[:20]:
        worst = ranked(built.points, query)[0][-COUNT // 2 :]
        result = index.search(query, 10, restriction=Restriction(worst, COUNT))

        assert_well_formed(index, result, query, 10, np.sort(worst))
        assert result.rows.tolist() == ranked(built.points, query, worst)[0][:10].tolist()


@COSTS
@pytest.mark.parametrize("excluded_count", [1, 5, 40, 500, COUNT - 3, COUNT])
def test_excluded_rows_never_come_back_even_when_they_are_the_best(
    built: Built, cost: CostModel, excluded_count: int
) -> None:
    index = built.index(cost)
    results = []
    for query in built.queries[:20]:
        order = ranked(built.points, query)[0]
        excluded, allowed = order[:excluded_count], order[excluded_count:]
        result = index.search(query, 10, excluded=np.concatenate([excluded, excluded]))
        assert_well_formed(index, result, query, 10, np.sort(allowed))
        results.append(np.isin(allowed[:10], result.rows).mean() if len(allowed) else 1.0)

    assert np.mean(results) >= 0.93


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mix_of_restriction_and_exclusion_gives_a_complete_answer(affinity: Built, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([0, 1, 7, 300, 2990, COUNT]))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    allowed = random.choice(COUNT, size, replace=False)
    excluded = random.integers(0, COUNT, data.draw(st.sampled_from([0, 1, 30, 2000])))
    k = data.draw(st.sampled_from([1, 10, 100, 5000]))
    index = affinity.index(data.draw(st.sampled_from([GRAPH_IS_CHEAP, GRAPH_IS_DEAR])))
    query = affinity.queries[data.draw(st.integers(0, 9))]

    result = index.search(
        query, k, restriction=Restriction(allowed, COUNT), excluded=excluded, exact=data.draw(st.booleans())
    )

    assert_well_formed(index, result, query, k, np.setdiff1d(allowed, excluded))


def test_exact_search_is_exact_and_orders_ties_by_row() -> None:
    points = Points(vectors=np.array([[1], [2], [1], [2], [0]], np.float32))
    index = SpaceIndex(points, cost=CostModel())

    result = index.search(np.ones(1, np.float32), 4)

    assert result.path is SearchPath.EXACT
    assert result.rows.tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("k", [1, 10, 200])
def test_a_scan_of_all_rows_gives_what_picking_the_allowed_ones_from_it_gives(affinity: Built, k: int) -> None:
    index = SpaceIndex(affinity.points, cost=CostModel(gather_us_per_row=1.0))
    allowed, excluded = np.flatnonzero(np.arange(COUNT) % 10), np.array([3, 7, 20, 21])
    restriction = Restriction(allowed, COUNT)
    left = np.setdiff1d(allowed, excluded)

    for query in affinity.queries:
        result = index.search(query, k, restriction=restriction, excluded=excluded)

        places, scores = exact.top_k(index.points.scores(query)[left], k)
        assert result.rows.tolist() == left[places].tolist()
        assert result.scores.tobytes() == scores.tobytes()


def test_asking_for_exact_search_gets_it(built: Built) -> None:
    result = built.index().search(built.queries[0], 10, exact=True)

    assert result.path is SearchPath.EXACT
    assert result.rows.tolist() == ranked(built.points, built.queries[0])[0][:10].tolist()


@pytest.mark.parametrize("k", [1, 10, 11, 12])
def test_a_short_query_gets_exact_scores_all_the_same(affinity: Built, k: int) -> None:
    index, query = affinity.index(), affinity.queries[0] * np.float32(1e-5)

    result = index.search(query, k)

    assert result.path is SearchPath.HNSW
    np.testing.assert_allclose(result.scores, index.points.scores(query, result.rows), rtol=1e-5)
    assert (np.diff(result.scores) <= 0).all()


@COSTS
def test_a_batch_answers_as_one_by_one(built: Built, cost: CostModel) -> None:
    index = built.index(cost)

    rows, scores = index.search_batch(built.queries, 10)

    singles = [index.search(query, 10) for query in built.queries]
    np.testing.assert_array_equal(rows, [single.rows for single in singles])
    np.testing.assert_allclose(scores, [single.scores for single in singles], rtol=1e-5, atol=1e-6)


def test_a_batch_may_be_empty_or_ask_for_more_than_there_is(affinity: Built) -> None:
    index = affinity.index()

    assert index.search_batch(affinity.queries[:0], 10)[0].shape == (0, 10)
    assert index.search_batch(affinity.queries[:2], COUNT + 5)[0].shape == (2, COUNT)


def test_a_longer_list_is_used_and_a_shorter_one_does_not_cost_recall(affinity: Built) -> None:
    index = affinity.index()
    queries = affinity.queries

    def recall(ef_search: int | None) -> float:
        return overlap(index, [index.search(query, 10, ef_search=ef_search) for query in queries], queries)

    assert recall(1) == recall(None)
    assert recall(1000) > recall(None)
    assert recall(10**6) >= 0.99


def test_score_rows_keeps_the_order_given(built: Built) -> None:
    rows = np.array([5, 2, 2999, 5])

    scores = built.index().score_rows(built.queries[0], rows)

    np.testing.assert_allclose(scores, built.points.scores(built.queries[0])[rows], rtol=1e-5, atol=1e-6)
    assert built.index().score_rows(built.queries[0], rows[:0]).shape == (0,)


def test_threads_with_different_lists_and_filters_do_not_disturb_each_other(affinity: Built) -> None:
    index = affinity.index()
    restriction = Restriction(np.arange(0, COUNT, 2), COUNT)

    def search(query: Vectors, number: int) -> SearchResult:
        kind = number % 4
        if kind == 0:
            return index.search(query, 10, ef_search=800)
        if kind == 1:
            return index.search(query, 10, restriction=restriction)
        if kind == 2:
            return index.search(query, 10, excluded=np.arange(number % 7 + 1))
        return index.search(query, 10)

    def answer(number: int) -> bytes:
        return search(affinity.queries[number % 50], number).rows.tobytes()

    expected = [answer(number) for number in range(400)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(answer, range(400))) == expected


def test_a_forked_child_answers_as_its_parent(affinity: Built) -> None:
    index = affinity.index()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        sender.send(index.search_batch(affinity.queries, 10)[0].tolist())

    process = context.Process(target=child)
    process.start()
    assert receiver.poll(30)
    assert receiver.recv() == index.search_batch(affinity.queries, 10)[0].tolist()
    process.join(30)
    assert process.exitcode == 0


def test_whoever_lets_go_of_an_index_frees_it_at_once(affinity: Built) -> None:
    index = affinity.index()
    assert index.others_us(10) < math.inf
    gone = weakref.ref(index)
    gc.disable()
    try:
        del index
        assert gone() is None
    finally:
        gc.enable()


def test_a_graph_of_other_points_is_refused(affinity: Built) -> None:
    with pytest.raises(InvalidArgumentError, match="graph"):
        SpaceIndex(make_points(Space.AFFINITY, COUNT, 16, seed=9), affinity.graph, cost=CostModel())


def test_an_index_without_points_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="points"):
        SpaceIndex(Points(vectors=np.empty((0, 3), np.float32)), cost=CostModel())


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("query", {"query": np.ones(16, np.float32)}),
        ("query", {"query": np.ones((1, 17), np.float32)}),
        ("query", {"query": np.full(17, np.nan, np.float32)}),
        ("k", {"k": 0}),
        ("excluded", {"excluded": np.array([COUNT])}),
        ("excluded", {"excluded": np.array([-1])}),
        ("restriction", {"restriction": Restriction(np.array([1]), COUNT + 1)}),
    ],
)
def test_a_wrong_argument_is_named(affinity: Built, field: str, arguments: dict[str, object]) -> None:
    call: dict[str, object] = {"query": affinity.queries[0], "k": 10, **arguments}
    with pytest.raises(InvalidArgumentError, match=field):
        affinity.index().search(**call)  # type: ignore[arg-type]  # wrong on purpose


def test_wrong_rows_to_score_are_refused(affinity: Built) -> None:
    for row in (-1, COUNT):
        with pytest.raises(InvalidArgumentError, match="rows"):
            affinity.index().score_rows(affinity.queries[0], np.array([row]))


def test_an_exact_search_that_nobody_expected_can_be_held_back(built: Built) -> None:
    index = built.index()
    query = built.queries[0]
    far = Restriction(ranked(built.points, query)[0][-COUNT // 2 :], COUNT)

    with pytest.raises(LongScanError):
        index.search(query, 5, restriction=far, fallback_us_max=10.0)
    assert index.search(query, 5, restriction=far, fallback_us_max=1e9).path is SearchPath.EXACT
    assert index.search(query, 5, restriction=far, exact=True, fallback_us_max=10.0).path is SearchPath.EXACT
    assert index.search(query, 5, fallback_us_max=0.0).path is SearchPath.HNSW


def test_a_long_exact_search_obeys_the_deadline(affinity: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "CHUNK_ROWS", 1000)
    index = affinity.index(GRAPH_IS_DEAR)
    wide = Restriction(np.arange(2500), COUNT)

    for restriction in (None, wide):
        with pytest.raises(DeadlineExceededError):
            index.search(affinity.queries[0], 10, restriction=restriction, deadline=Deadline(at=0.0))


def test_the_estimate_follows_the_path_that_would_be_taken(affinity: Built) -> None:
    cost = CostModel(
        graph_us=1.0,
        graph_us_per_candidate=1.0,
        graph_us_per_result=0.5,
        exact_us=10.0,
        scan_us_per_row=1.0,
        gather_us_per_row=1.0,
    )
    index = affinity.index(cost)
    few = Restriction(np.arange(20), COUNT)

    assert index.estimated_us(10) == pytest.approx(1 + RECIPE.ef_search + 5)
    assert index.estimated_us(10, ef_search=5) == index.estimated_us(10)
    assert index.estimated_us(10, ef_search=1000) == pytest.approx(1 + 1000 + 5)
    assert index.estimated_us(10, ef_search=10**6) == pytest.approx(1 + COUNT + 5)
    assert index.estimated_us(10, exact=True) == pytest.approx(10 + COUNT)
    assert index.estimated_us(10, restriction=few) == pytest.approx(10 + 20 + 20)


@pytest.mark.parametrize("excluded_count", [1, 10, 100, 500])
def test_a_search_costs_at_most_twice_its_estimate_when_its_best_rows_are_excluded(excluded_count: int) -> None:
    points = make_points(Space.LIKENESS, 20_000, 32, spread=0.1)
    graph = Graph.build(points, replace(RECIPE, ef_construction=40, ef_search=16), threads=2)
    queries = make_queries(points, 150)
    bands = measure_bands(points, graph, queries[:100])
    excluded = [ranked(points, query)[0][:excluded_count] for query in queries[100:]]

    def share_estimated() -> float:
        """Measure what searches cost, estimate it from a cost model measured anew, and return the ratio."""
        index = SpaceIndex(points, graph, bands=bands, recall_target=0.5)
        medians = []
        for _ in range(5):
            times = [time.thread_time()]
            for query, rows in zip(queries[100:], excluded, strict=True):
                index.search(query, 10, excluded=rows)
                times.append(time.thread_time())
            medians.append(float(np.median(np.diff(times))) * 1e6)
        return index.estimated_us(10, excluded_count=excluded_count) / min(medians)

    # A busy machine spoils one measurement in twenty, never four in a row; a wrong estimate is wrong every time.
    assert any(share_estimated() >= 0.5 for _ in range(4))


def test_a_restriction_used_again_keeps_its_rows_side_by_side_and_answers_the_same(affinity: Built) -> None:
    index = affinity.index(GRAPH_IS_DEAR)
    restriction = Restriction(np.arange(0, COUNT, 7), COUNT)
    estimates, answers = [], []
    for _ in range(3):
        estimates.append(index.estimated_us(10, restriction=restriction))
        answers.append(index.search(affinity.queries[0], 10, restriction=restriction).rows.tolist())

    assert answers[0] == answers[1] == answers[2]
    assert estimates[2] < estimates[0]
