from __future__ import annotations

import numpy as np

from annserve.search.bands import Bands, Level
from annserve.search.cost import CostModel
from annserve.search.planner import Planner
from annserve.search.restriction import Restriction

COUNT = 10_000
SHORT, LONG = np.arange(COUNT // 2), np.arange(COUNT // 2, COUNT)


def level(depth: int, ef_search: int, *recalls: float) -> Level:
    return Level(depth=depth, ef_search=ef_search, hit_shares=(0.2, 0.8), recalls=recalls)


LEVELS = (
    level(10, 50, 0.7, 0.99),
    level(20, 50, 0.5, 0.9),
    level(20, 100, 0.8, 1.0),
    level(40, 200, 0.9, 1.0),
    level(160, 800, 0.9, 1.0),
)


def planner(*, scan_us_per_row: float = 1.0, recall_target: float = 0.95, graph_us_per_result: float = 0.0) -> Planner:
    """Return a planner of 5,000 short points, reached badly, and 5,000 long ones; one candidate costs 1 us."""
    return Planner(
        norms=np.where(np.arange(COUNT) < COUNT // 2, 1.0, 2.0).astype(np.float32),
        bands=Bands(edges=(1.5,), levels=LEVELS),
        cost=CostModel(
            graph_us=0,
            graph_us_per_candidate=1,
            graph_us_per_result=graph_us_per_result,
            exact_us=0,
            scan_us_per_row=scan_us_per_row,
        ),
        ef_search=50,
        recall_target=recall_target,
    )


def lists(
    k: int, rows: np.ndarray | None = None, *, excluded_count: int = 0, scan_us_per_row: float = 1.0
) -> list[int]:
    restriction = None if rows is None else Restriction(rows, COUNT)
    chosen = planner(scan_us_per_row=scan_us_per_row).levels(k, restriction, excluded_count)
    return [choice.ef_search for choice in chosen]


def test_what_the_graph_was_tuned_for_takes_the_tuned_list() -> None:
    assert lists(10) == lists(12) == lists(10, excluded_count=1) == [50]


def test_a_deeper_answer_takes_the_shortest_list_that_recalls_enough() -> None:
    assert lists(13) == lists(24) == [100]
    assert lists(25) == [200]


def test_what_no_list_can_fill_goes_to_exact_search() -> None:
    assert lists(193) == []


def test_a_filter_takes_a_list_that_leaves_enough_survivors_and_then_one_that_leaves_thrice_as_many() -> None:
    half = np.arange(0, COUNT, 2)

    assert lists(4, half) == [100, 200]
    assert lists(10, half) == [200, 800]


def test_a_filter_is_judged_by_the_bands_it_keeps() -> None:
    assert lists(5, LONG) == [50, 100]
    assert lists(5, SHORT) == []


def test_excluded_rows_are_first_hoped_and_then_allowed_to_be_the_best() -> None:
    assert lists(10, excluded_count=12) == [100, 200]
    assert lists(10, excluded_count=20) == [100, 800]
    assert lists(10, excluded_count=5000) == [100]


def test_a_graph_dearer_than_a_scan_is_not_asked() -> None:
    assert lists(10, scan_us_per_row=49 / COUNT) == []
    assert lists(13, scan_us_per_row=60 / COUNT) == []
    assert lists(10, np.arange(0, COUNT, 2), scan_us_per_row=1e-4) == []


def test_a_list_longer_than_a_scan_costs_goes_to_the_scan() -> None:
    plan = planner(scan_us_per_row=0.1)

    assert [choice.ef_search for choice in plan.levels(10, None, 0, 999)] == [50]
    assert plan.levels(10, None, 0, 1000) == ()


def test_rows_over_fetched_are_part_of_what_an_attempt_costs() -> None:
    plan = planner(scan_us_per_row=0.02, graph_us_per_result=5)

    assert plan.worst_us(13, None, 0, 0) == 100 + 5 * 13
    assert plan.levels(13, None, 4) == ()


def test_the_worst_is_every_attempt_and_a_scan_where_it_is_likely() -> None:
    plan = planner()
    half = Restriction(np.arange(0, COUNT, 2), COUNT)

    assert plan.worst_us(10, None, 1, 0) == 50
    assert plan.worst_us(10, None, 12, 0) == 100 + 200
    assert plan.worst_us(10, None, 12, 500) == 500 + 500
    assert plan.worst_us(10, None, 5000, 0) == 100 + COUNT
    assert plan.worst_us(10, half, 0, 0) == 200 + 800
    assert plan.worst_us(200, half, 0, 0) == plan.exact_us(half)
    assert plan.worst_us(193, None, 0, 0) == COUNT


def test_few_rows_are_gathered_and_many_scanned_with_all() -> None:
    plan = planner(scan_us_per_row=0.01)

    assert plan.gathers(Restriction(np.arange(100), COUNT))
    assert not plan.gathers(Restriction(np.arange(9000), COUNT))
    assert plan.exact_us(Restriction(np.arange(9000), COUNT)) == plan.exact_us(None)
