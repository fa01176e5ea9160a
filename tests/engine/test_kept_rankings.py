"""Candidates are ranked once for equal questions, and anew after whatever would have made them others."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from engine_catalog import KIND, PRICE
from placed_engine import PlacedEngine
from placement_twins import recipe

from annserve.domain.filter import Equals, Range
from annserve.domain.fresh import FreshChange
from annserve.domain.query import Degradation, Mode
from annserve.engine.ranking import Ranking
from annserve.placements.recipe import Cap, HistoryExclusion
from annserve.snapshot.snapshot import Snapshot

SEED, OTHER, USER = "작품-11", "작품-23", "user-7"
CHEAP = Range(PRICE, maximum=49.0)
FIRST = Equals(KIND, "kind-0")
FILTERED = recipe(filter=CHEAP)


class Counted:
    """Counts how often the engine ranks."""

    def __init__(self, rank: Callable[..., Any]) -> None:
        self._rank = rank
        self.count = 0

    async def __call__(self, *arguments: Any) -> Ranking:
        self.count += 1
        ranking: Ranking = await self._rank(*arguments)
        return ranking


@pytest.fixture
def placed(snapshot: Snapshot) -> PlacedEngine:
    made = PlacedEngine.of(snapshot)
    made.know(CHEAP, FIRST)
    return made


@pytest.fixture
def ranked(placed: PlacedEngine, monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted(placed.inner.rank)
    monkeypatch.setattr(placed.inner, "rank", counted)
    return counted


async def test_users_and_rules_share_the_candidates_of_a_seed(placed: PlacedEngine, ranked: Counted) -> None:
    first = await placed.ask(FILTERED, SEED)
    for user_id in (None, USER, "user-8"):
        assert (await placed.ask(FILTERED, SEED, user_id=user_id)).item_ids == first.item_ids
    assert ranked.count == 1
    capped = recipe(filter=CHEAP, caps=(Cap(name="caps[0]", field=KIND, at_most=1),))
    varied = recipe(filter=CHEAP, diversity=0.5)
    answers = [await placed.ask(one, SEED) for one in (capped, varied, capped, varied)]
    assert ranked.count == 2
    shown = [(answer.item_ids, answer.scores) for answer in answers]
    assert shown[:2] == shown[2:]


@pytest.mark.parametrize(
    "fields",
    [
        {"item_ids": (OTHER,)},
        {"item_ids": (SEED, OTHER)},
        {"page_size": 5},
        {"options": {"filter": FIRST}},
        {"options": {"exact": True}},
        {"options": {"exclude_item_ids": (OTHER,)}},
        {"options": {"candidate_item_ids": (OTHER,)}},
        {"options": {"explain": True}},
        {"options": {"bypass_cache": True}},
        {"options": {"max_staleness_seconds": 0.0}},
    ],
    ids=str,
)
async def test_another_question_is_ranked_by_itself(
    placed: PlacedEngine, ranked: Counted, fields: dict[str, Any]
) -> None:
    await placed.ask(FILTERED, SEED)
    item_ids = fields.pop("item_ids", (SEED,))
    options = {"filter": CHEAP, "k": fields.get("page_size", 10), **fields.get("options", {})}
    await placed.ask(FILTERED, *item_ids, **fields)
    assert ranked.count == 2
    if "filter" not in fields.get("options", {}) and "max_staleness_seconds" not in options:
        answer = await placed.ask(FILTERED, *item_ids, **fields)
        assert answer.item_ids == (await placed.bare(Mode.SIMILAR, *item_ids, **options)).item_ids


async def test_whoever_is_left_out_by_her_history_has_candidates_of_her_own(
    placed: PlacedEngine, ranked: Counted
) -> None:
    excluding = recipe(history_exclusions=(HistoryExclusion(event="disliked", last=5),))
    for _ in range(2):
        await placed.ask(excluding, SEED, user_id=USER)
        await placed.ask(recipe(mode=Mode.PERSONALIZE), user_id=USER)
    assert ranked.count == 4


async def test_after_each_change_the_candidates_are_those_of_now(placed: PlacedEngine, ranked: Counted) -> None:
    items, fresh = placed.core.snapshot.items, placed.core.fresh
    seed = fresh.items.vectors(fresh.items.rows([SEED]))[0]
    number = iter(range(1, 100))

    def flip(item_id: str) -> None:
        row = items.row(item_id)
        assert row is not None
        leaf = placed.bitmaps.get(CHEAP)
        assert leaf is not None
        placed.bitmaps.flip(CHEAP, row, passes=row not in leaf.bitmap)

    def upsert(item_id: str) -> None:
        vector = (seed * np.float32(2.0)).astype(np.float32)
        placed.store.documents[item_id] = {"price": 1, "kind": "kind-0"}
        placed.fresh.apply([FreshChange(item_id=item_id, number=next(number), vector=vector)], next(number))
        placed.know(CHEAP)

    for change in (flip, upsert, flip):
        before = (await placed.ask(FILTERED, SEED)).item_ids
        count = ranked.count
        change("new-1" if change is upsert else before[0])
        after = (await placed.ask(FILTERED, SEED)).item_ids
        assert after != before
        assert after == (await placed.bare(Mode.SIMILAR, SEED, filter=CHEAP)).item_ids
        assert ranked.count > count
        count = ranked.count
        assert (await placed.ask(FILTERED, SEED)).item_ids == after
        assert ranked.count == count


async def test_items_as_they_were_are_not_held_on_to(placed: PlacedEngine) -> None:
    def upsert(number: int) -> None:
        vector = np.ones(16, np.float32)
        placed.fresh.apply([FreshChange(item_id=f"new-{number}", number=number, vector=vector)], number)
        placed.know(CHEAP)

    upsert(1)
    for seed in (SEED, OTHER):
        await placed.ask(FILTERED, seed)
        await placed.ask(FILTERED, seed)
    before = weakref.ref(placed.fresh.items)
    upsert(2)
    await placed.ask(FILTERED, SEED)
    gc.collect()
    assert before() is None


async def test_what_is_told_of_a_call_is_told_anew(placed: PlacedEngine, ranked: Counted) -> None:
    ages = []
    for synced_ago in (0.0, 3.0):
        bitmap = placed.bitmaps.get(CHEAP)
        assert bitmap is not None
        placed.bitmaps.synced_at = bitmap.read_at - synced_ago
        bitmap.read_at -= synced_ago
        ages.append((await placed.ask(FILTERED, SEED)).catalog_age_seconds)
    assert ranked.count == 1
    assert ages[0] is not None
    assert ages[1] is not None
    assert ages[1] - ages[0] >= 3.0
    placed.bitmaps.stale = True
    assert (await placed.ask(FILTERED, SEED)).degradations == (Degradation.CATALOG_STALE,)
    assert ranked.count == 2
