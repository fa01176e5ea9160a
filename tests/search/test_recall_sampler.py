from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from spaces import GRAPH_IS_CHEAP, GRAPH_IS_DEAR, RECIPE, make_points, make_queries

from annserve.domain.arrays import Scores
from annserve.domain.model import Space
from annserve.domain.query import SearchPath
from annserve.search import recall_sampler
from annserve.search.bands import measure_bands
from annserve.search.cost import CostModel
from annserve.search.exact import exact_scores, exact_top_k_batch
from annserve.search.graph import Graph
from annserve.search.index import SpaceIndex
from annserve.search.points import Points
from annserve.search.recall import recall_of
from annserve.search.recall_sampler import RecallSampler
from annserve.search.restriction import Restriction

K = 10
COUNT = 2_000
SECONDS = 20.0


def index_of(points: Points, *, ef_search: int, cost: CostModel = GRAPH_IS_CHEAP) -> SpaceIndex:
    """Return an index whose graph is believed to be good, whatever it is."""
    graph = Graph.build(points, RECIPE).with_ef_search(ef_search)
    bands = measure_bands(points, graph, make_queries(points, 200))
    return SpaceIndex(points, graph, bands=bands, cost=cost, recall_target=0.1)


@pytest.fixture(scope="module")
def points() -> Points:
    return make_points(Space.LIKENESS, COUNT, 16)


class Reports:
    def __init__(self) -> None:
        self.all: list[tuple[Space, bool, int, int]] = []

    def take(self, space: Space, is_filtered: bool, found_count: int, missed_count: int) -> None:
        self.all.append((space, is_filtered, found_count, missed_count))

    def wait(self, count: int) -> None:
        until(lambda: len(self.all) >= count)


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.001)


@pytest.fixture
def at_leisure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one sample looked at after another, without pauses."""
    monkeypatch.setattr(recall_sampler, "BUSY_SHARE", 1.0)


@contextmanager
def sampled(index: SpaceIndex, share: float = 1.0) -> Iterator[Reports]:
    reports = Reports()
    sampler = RecallSampler({Space.LIKENESS: index}, share, reports.take)
    try:
        yield reports
    finally:
        sampler.close()


@pytest.mark.usefixtures("at_leisure")
@pytest.mark.parametrize("ef_search", [1, 100])
def test_recall_is_what_exact_answers_say_of_these_queries(points: Points, ef_search: int) -> None:
    index, queries = index_of(points, ef_search=ef_search), make_queries(points, 60, seed=5)
    with sampled(index) as reports:
        found = []
        for number, query in enumerate(queries):
            result = index.search(query, K)
            assert result.path is SearchPath.HNSW
            found.append(result.rows)
            reports.wait(number + 1)

    exact, _ = exact_top_k_batch(points, queries, K)
    expected = recall_of(points, queries, exact, np.array(found))
    assert all(hits + misses == K for _, _, hits, misses in reports.all)
    assert sum(hits for _, _, hits, _ in reports.all) == round(expected * K * len(queries))
    assert (expected < 0.9) == (ef_search == 1)


@pytest.mark.usefixtures("at_leisure")
def test_what_a_filter_and_the_caller_leave_out_is_not_missed(points: Points) -> None:
    index = index_of(points, ef_search=200)
    restriction = Restriction(np.arange(0, COUNT, 2), COUNT)
    (query,) = make_queries(points, 1, seed=6)
    best = index.search(query, 5, restriction=restriction, exact=True).rows
    with sampled(index) as reports:
        assert index.search(query, K, restriction=restriction, excluded=best).path is SearchPath.HNSW
        reports.wait(1)
        assert index.search_others(make_queries(points, 1, seed=7), [3], K) is not None
        reports.wait(2)
        # Of a row that came after the snapshot there is nothing to leave out.
        assert index.search_others(make_queries(points, 1, seed=7), [COUNT], K) is not None
        reports.wait(3)

    assert [(space, is_filtered) for space, is_filtered, _, _ in reports.all] == [
        (Space.LIKENESS, True),
        (Space.LIKENESS, False),
        (Space.LIKENESS, False),
    ]
    assert all((found, missed) == (K, 0) for _, _, found, missed in reports.all)


def test_exact_answers_are_no_sample(points: Points) -> None:
    index = index_of(points, ef_search=100, cost=GRAPH_IS_DEAR)
    (query,) = make_queries(points, 1)
    with sampled(index) as reports:
        assert index.search(query, K).path is SearchPath.EXACT

    assert reports.all == []


def test_so_many_are_drawn_as_were_asked_for(points: Points) -> None:
    index = index_of(points, ef_search=100)
    sampler = RecallSampler({Space.LIKENESS: index}, 0.01, Reports().take)
    drawn = sum(sampler.is_drawn() for _ in range(20_000))
    sampler.close()

    # 200 are expected; nine standard deviations either way.
    assert 80 < drawn < 320


def test_no_more_than_a_hundredth_of_a_processor_is_taken(points: Points, monkeypatch: pytest.MonkeyPatch) -> None:
    index, scores_of = index_of(points, ef_search=100), exact_scores

    def slow(*arguments: Any) -> Scores:
        done = time.thread_time() + 0.02
        while time.thread_time() < done:
            pass
        return scores_of(*arguments)

    monkeypatch.setattr(recall_sampler, "exact_scores", slow)
    (query,) = make_queries(points, 1)
    with sampled(index) as reports:
        assert index.observer is not None
        began = time.monotonic()
        while time.monotonic() < began + 0.5:
            index.observer.take(query, None, None, np.arange(K))
            time.sleep(0.001)

    # A second is not due before two seconds have passed.
    assert len(reports.all) == 1


@pytest.mark.usefixtures("at_leisure")
def test_nothing_is_learned_of_a_filter(points: Points) -> None:
    index, restriction = index_of(points, ef_search=200), Restriction(np.arange(0, COUNT, 2), COUNT)
    queries = make_queries(points, 5, seed=8)
    with sampled(index) as reports:
        for number, query in enumerate(queries):
            assert index.search(query, K, restriction=restriction).path is SearchPath.HNSW
            reports.wait(number + 1)

    assert all(selection.gathered is None for selection in restriction.selections.values())
    assert "ceilings" not in vars(restriction)


@pytest.mark.usefixtures("at_leisure")
def test_items_that_are_gone_are_no_filter(points: Points) -> None:
    index, (query,) = index_of(points, ef_search=200), make_queries(points, 1)
    with sampled(index) as reports:
        assert index.search(query, K, restriction=Restriction(np.arange(5, COUNT), COUNT)).path is SearchPath.HNSW
        reports.wait(1)

    assert reports.all == [(Space.LIKENESS, False, K, 0)]


@pytest.mark.usefixtures("at_leisure")
def test_one_that_fails_is_not_the_last(points: Points, caplog: pytest.LogCaptureFixture) -> None:
    index, queries = index_of(points, ef_search=100), make_queries(points, 2)
    told: list[int] = []

    def report(_space: Space, _is_filtered: bool, found_count: int, _missed_count: int) -> None:
        told.append(found_count)
        if len(told) == 1:
            raise OSError("no room")

    sampler = RecallSampler({Space.LIKENESS: index}, 1.0, report)
    for number, query in enumerate(queries):
        index.search(query, K)
        until(lambda number=number: len(told) > number)  # type: ignore[misc]
    sampler.close()

    assert len(told) == 2
    assert "no room" in caplog.text


def test_whoever_closes_does_not_wait_and_leaves_nothing_behind(points: Points) -> None:
    index = index_of(points, ef_search=100)
    (query,) = make_queries(points, 1)
    with sampled(index) as reports:
        index.search(query, K)
        reports.wait(1)
        for _ in range(3):
            index.search(query, K)
        began = time.monotonic()

    assert time.monotonic() - began < recall_sampler._JOIN_SECONDS
    assert index.observer is None
    assert "annserve-recall" not in [thread.name for thread in threading.enumerate()]
