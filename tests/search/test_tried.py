from __future__ import annotations

import math

from annserve.search.recipe import Recipe, Reduction
from annserve.search.tried import Trial, TriedRecipes

RAW, AUGMENTED = Reduction.INNER_PRODUCT, Reduction.AUGMENTED_L2


def note(
    tried: TriedRecipes,
    reduction: Reduction,
    m: int,
    ef_search: int,
    recall: float,
    query_us: float,
    *,
    is_shallow: bool = False,
) -> None:
    recipe = Recipe(reduction=reduction, m=m, ef_construction=100, ef_search=ef_search)
    trial = Trial(
        reduction=reduction,
        m=m,
        ef_construction=100,
        ef_search=ef_search,
        point_count=1000,
        recall=recall,
        query_us=query_us,
    )
    tried.add(recipe, trial, is_shallow=is_shallow)


def nothing_tried(scan_us: float = math.inf) -> TriedRecipes:
    return TriedRecipes(target=0.98, scan_us=scan_us)


def test_a_short_list_that_meets_the_target_settles_it() -> None:
    tried = nothing_tried()
    note(tried, RAW, 16, 24, 0.99, 20.0)

    assert tried.is_settled(math.inf)


def test_denser_graphs_are_tried_while_they_make_searches_faster() -> None:
    tried = nothing_tried()
    note(tried, AUGMENTED, 16, 384, 0.985, 144.0)
    assert not tried.is_settled(math.inf)

    note(tried, AUGMENTED, 32, 256, 0.985, 120.0)
    assert not tried.is_settled(144.0)

    note(tried, AUGMENTED, 48, 256, 0.99, 150.0)
    assert tried.is_settled(120.0)
    assert [recipe.m for recipe in tried.ranked()[0]] == [32, 16, 48]


def test_shallow_graphs_settle_nothing_and_come_after_the_best_of_the_others() -> None:
    tried = nothing_tried()
    note(tried, RAW, 16, 24, 0.99, 20.0, is_shallow=True)
    assert not tried.is_settled(math.inf)
    assert tried.slowest_us == math.inf

    note(tried, AUGMENTED, 16, 64, 0.99, 40.0)
    assert [recipe.reduction for recipe in tried.ranked()[0]] == [AUGMENTED, RAW]


def test_a_reduction_far_from_a_target_that_another_meets_is_not_built_denser() -> None:
    tried = nothing_tried()
    note(tried, RAW, 16, 4096, 0.74, 900.0)
    assert not tried.is_settled(math.inf)
    assert not tried.hopeless, "nothing meets the target yet"

    note(tried, AUGMENTED, 16, 384, 0.985, 144.0)
    assert not tried.is_settled(math.inf)
    assert tried.hopeless == {RAW}


def test_near_misses_are_built_denser_and_the_nearest_comes_first() -> None:
    tried = nothing_tried()
    note(tried, RAW, 16, 4096, 0.9, 900.0)
    note(tried, AUGMENTED, 16, 4096, 0.97, 900.0)

    assert not tried.is_settled(math.inf)
    assert not tried.hopeless
    assert [recipe.reduction for recipe in tried.ranked()[1]] == [AUGMENTED, RAW]


def test_far_from_the_target_at_the_cost_of_a_scan_is_hopeless_whatever_others_do() -> None:
    tried = nothing_tried(scan_us=500.0)
    note(tried, RAW, 16, 1024, 0.74, 600.0)

    assert tried.hopeless == {RAW}
    assert tried.slowest_us == 500.0
