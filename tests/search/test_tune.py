from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from spaces import make_points, make_queries, ranked

from annserve.domain.arrays import Rows, Vectors
from annserve.domain.errors import InvalidArgumentError, RecallNotReachedError
from annserve.domain.model import Space
from annserve.search import tune as tune_module
from annserve.search.exact import exact_top_k_batch
from annserve.search.points import Points
from annserve.search.recall import recall_of
from annserve.search.recipe import Reduction
from annserve.search.tune import TuneSettings, tune

QUICK = TuneSettings(ms=(8, 16), ef_construction=60, ef_searches=(10, 20, 40, 80, 160))
HOPELESS = replace(QUICK, ms=(2,), ef_construction=2, ef_searches=(1, 2))


def small_space(count: int = 1500) -> tuple[Points, Vectors]:
    points = make_points(Space.AFFINITY, count, 12)
    return points, make_queries(points, 200)


def test_the_graph_chosen_keeps_the_promise_on_queries_it_was_not_chosen_by() -> None:
    points, queries = small_space()

    tuned = tune(points, queries, target=0.95, settings=QUICK)

    assert tuned.graph is not None
    assert tuned.bands is not None
    assert tuned.recall >= 0.95
    fresh = make_queries(points, 200, seed=8)
    found = tuned.graph.search(fresh, 10)
    assert found is not None
    assert recall_of(points, fresh, exact_top_k_batch(points, fresh, 10)[0], found) >= 0.93


def test_the_fastest_recipe_that_meets_the_target_on_the_sample_is_taken() -> None:
    points, queries = small_space()

    tuned = tune(points, queries, target=0.9, settings=QUICK)

    assert tuned.graph is not None
    tried, confirmed = tuned.trials[:-1], tuned.trials[-1]
    meeting = [trial for trial in tried if trial.recall >= 0.9]
    fastest = min(meeting, key=lambda trial: trial.query_us)
    assert (confirmed.reduction, confirmed.m) == (fastest.reduction, fastest.m)
    assert {trial.reduction for trial in tried} == set(Reduction)


def test_a_sample_chooses_and_all_points_confirm() -> None:
    points, queries = small_space()

    tuned = tune(points, queries, target=0.95, settings=replace(QUICK, sample_size=400))

    assert tuned.graph is not None
    assert tuned.graph.count == 1500
    counts = [trial.point_count for trial in tuned.trials]
    assert counts[0] == 400
    assert counts[-1] == 1500
    assert tuned.trials[-1].recall == tuned.recall >= 0.95


@pytest.mark.parametrize("sample_size", [600, 300])
def test_recall_is_that_of_the_second_half_of_the_queries_their_own_rows_left_out(sample_size: int) -> None:
    points = Points.likeness(make_points(Space.LIKENESS, 600, 8).vectors, 1.0)
    own_rows: Rows = np.arange(101)
    settings = replace(HOPELESS, scan_us_max=0, ef_searches=(10,), sample_size=sample_size)

    tuned = tune(
        points, points.matrix(own_rows), own_rows=own_rows, target=0.999, accept_recall=0.001, settings=settings
    )

    assert tuned.graph is not None
    shares = []
    for row in own_rows[1::2]:
        query = points.matrix(np.array([row]))[0]
        found = tuned.graph.search(query, 11)
        assert found is not None
        expected = [best for best in ranked(points, query)[0] if best != row][:10]
        shares.append(np.isin(expected, found[found != row][:10]).mean())
    assert tuned.recall == pytest.approx(np.mean(shares), abs=1e-4)


def test_exact_search_serves_when_no_graph_will_do_and_a_scan_is_cheap() -> None:
    points, queries = small_space()

    tuned = tune(points, queries, target=0.99, settings=replace(HOPELESS, scan_us_max=1e9))

    assert tuned.graph is None
    assert tuned.bands is None
    assert tuned.recall == 1.0
    assert max(trial.recall for trial in tuned.trials) < 0.99


@pytest.mark.parametrize(("slow_us_max", "is_enough"), [(5_000.0, True), (0.0, False)])
def test_no_second_graph_is_built_where_the_first_is_ten_times_as_fast_as_a_scan_and_not_too_slow(
    slow_us_max: float, is_enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_module, "_SLOW_US", 0.0)
    monkeypatch.setattr(tune_module, "_SLOW_US_MAX", slow_us_max)
    monkeypatch.setattr(tune_module, "_scan_us", lambda *_: 1e6)
    points, queries = small_space()

    tuned = tune(points, queries, target=0.9, settings=replace(QUICK, sample_size=400, scan_us_max=0.0))

    built = {(trial.reduction, trial.m) for trial in tuned.trials if trial.point_count == len(points)}
    assert (len(built) == 1) == is_enough


def test_graphs_slower_than_the_scan_that_may_serve_are_neither_searched_further_nor_built_denser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points, queries = small_space(600)
    monkeypatch.setattr(tune_module, "_QUICK_US", 0.0)
    monkeypatch.setattr(tune_module, "_scan_us", lambda *_: 1e-6)
    many = replace(HOPELESS, ms=(2, 3), ef_searches=(1, 2, 3))

    assert len(tune(points, queries, target=0.999, settings=many).trials) == len(Reduction)
    with pytest.raises(RecallNotReachedError):
        tune(points, queries, target=0.999, settings=replace(many, scan_us_max=0))


def test_a_target_out_of_reach_is_an_error_that_says_how_near_it_came() -> None:
    points, queries = small_space()

    with pytest.raises(RecallNotReachedError, match=r"0\.99 not reached") as refusal:
        tune(points, queries, target=0.99, settings=replace(HOPELESS, scan_us_max=0))

    assert float(refusal.value.metadata["best"]) < 0.99


def test_a_lower_recall_is_taken_when_it_is_accepted_and_no_lower_than_that() -> None:
    points, queries = small_space()
    settings = replace(HOPELESS, scan_us_max=0, ef_searches=(10,))

    tuned = tune(points, queries, target=0.99, accept_recall=0.01, settings=settings)

    assert tuned.graph is not None
    assert 0.01 <= tuned.recall < 0.99
    with pytest.raises(RecallNotReachedError):
        tune(points, queries, target=0.99, accept_recall=0.98, settings=settings)


@pytest.mark.parametrize("count", [1, 2, 11])
def test_the_smallest_spaces_can_be_tuned(count: int) -> None:
    points = Points.likeness(make_points(Space.LIKENESS, count, 4).vectors, 1.0)

    for own_rows in (None, np.zeros(4, np.int64)):
        tuned = tune(points, make_queries(points, 4), own_rows=own_rows, settings=QUICK)
        assert tuned.recall == 1.0


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("queries", {"queries": np.ones((1, 13), np.float32)}),
        ("queries", {"queries": np.ones((5, 12), np.float32)}),
        ("queries", {"queries": np.full((5, 13), np.nan, np.float32)}),
        ("target", {"target": 0.0}),
        ("target", {"target": 1.5}),
    ],
)
def test_wrong_arguments_are_named(field: str, arguments: dict[str, object]) -> None:
    points, queries = small_space(100)
    call: dict[str, object] = {"points": points, "queries": queries, **arguments}
    with pytest.raises(InvalidArgumentError, match=field):
        tune(**call)  # type: ignore[arg-type]  # wrong on purpose
