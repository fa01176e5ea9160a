"""What a placement's answer rests on: all that would make it another one changes its basis, and nothing else."""

from __future__ import annotations

import pytest
from engine_catalog import KIND, PRICE
from placed_engine import PlacedEngine, question
from placement_twins import TwinExpression, placement, recipe

from annserve.domain.filter import Equals, Range
from annserve.domain.query import Mode, Options, Query
from annserve.placements.recipe import Cap, PolicyRow, Recipe, WeightRule
from annserve.snapshot.snapshot import Snapshot

SEED = "작품-11"
CHEAP = Range(PRICE, maximum=49.0)
FIRST = Equals(KIND, "kind-0")
BOOSTED = recipe(weights=(WeightRule(name="boosts[0]", weight=2.0, items=CHEAP),))


@pytest.fixture
def placed(snapshot: Snapshot) -> PlacedEngine:
    made = PlacedEngine.of(snapshot)
    made.know()
    return made


def versions(placed: PlacedEngine, one: Recipe, **fields: object) -> tuple[int, ...] | None:
    placed.placements.show(placement(one))
    basis = placed.engine.basis(question(one.name, SEED, options=fields))
    return None if basis is None else basis.versions


async def test_nothing_is_known_of_an_answer_while_a_leaf_of_a_rule_is_not(placed: PlacedEngine) -> None:
    assert versions(placed, BOOSTED) is None
    placed.builder.finish(CHEAP)
    before = versions(placed, BOOSTED)
    assert before is not None
    assert versions(placed, BOOSTED) == before
    row = placed.core.snapshot.items.row("작품-99")
    assert row is not None
    placed.bitmaps.flip(CHEAP, row, passes=placed.price("작품-99") > 49)
    assert versions(placed, BOOSTED) not in (None, before)


async def test_leaves_of_both_filters_count(placed: PlacedEngine) -> None:
    placed.know(CHEAP, FIRST)
    bare = versions(placed, recipe())
    filtered = versions(placed, recipe(filter=CHEAP))
    both = versions(placed, recipe(filter=CHEAP), filter=FIRST)
    assert bare is not None
    assert filtered is not None
    assert both is not None
    assert len(bare) < len(filtered) < len(both)


async def test_recipe_and_variant_count_and_the_hour_only_where_it_is_read(placed: PlacedEngine) -> None:
    clock = recipe(policy=(PolicyRow(when=TwinExpression(lambda _: True, "request.hour"), mode=Mode.SIMILAR),))
    timed = Recipe(name="home", version="0123456789abcdef", policy=clock.policy, reads_clock=True)
    seen = [versions(placed, one) for one in (recipe(), recipe(version="2"), recipe(variant="b"), timed)]
    placed.now[0] = placed.now[0].replace(hour=13)
    later = [versions(placed, one) for one in (recipe(), timed)]
    assert len({*seen, later[1]}) == 5
    assert later[0] == seen[0]


async def test_fields_of_candidates_may_not_be_as_old_as_a_kept_answer_where_fresh_ones_are_wanted(
    placed: PlacedEngine,
) -> None:
    capped = recipe(caps=(Cap(name="caps[0]", field=KIND, at_most=2),))
    assert versions(placed, capped) is not None
    assert versions(placed, capped, max_staleness_seconds=5.0) is None
    assert versions(placed, recipe(), max_staleness_seconds=5.0) is not None


async def test_a_placement_that_there_is_not_has_no_basis(placed: PlacedEngine) -> None:
    assert placed.engine.basis(question("nowhere", SEED)) is None


async def test_plain_questions_rest_on_what_they_did(placed: PlacedEngine) -> None:
    query = Query(mode=Mode.SIMILAR, item_ids=(SEED,), options=Options(k=3))
    assert placed.engine.basis(query) == placed.inner.basis(query)
