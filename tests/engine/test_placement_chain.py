"""Which question a placement asks, who fills what is short, and what it does when the catalogue is down."""

from __future__ import annotations

import numpy as np
import pytest
from engine_catalog import KIND, PRICE
from placed_engine import PlacedEngine
from placement_twins import TwinExpression, experiment, placement, recipe

from annserve.domain.catalog import HistoryEntry
from annserve.domain.deadline import Deadline
from annserve.domain.errors import (
    CatalogUnavailableError,
    DeadlineExceededError,
    InvalidArgumentError,
    SnapshotNotHereError,
    UnknownItemError,
)
from annserve.domain.filter import Equals, Range
from annserve.domain.query import Answer, Degradation, LimitingRule, Mode, Query, Source, WeightedItem
from annserve.placements.recipe import (
    Cap,
    ContextField,
    Fallback,
    FallbackKind,
    OnUnavailable,
    Pin,
    PolicyRow,
    Recipe,
    WeightRule,
)
from annserve.snapshot.snapshot import Snapshot

SEED, OTHER, USER = "작품-11", "작품-23", "user-7"
CHEAP = Range(PRICE, maximum=49.0)
NOBODY = Equals(KIND, "kind-of-nothing")
POPULAR = Fallback(kind=FallbackKind.POPULAR)
RECENT = Fallback(kind=FallbackKind.RECENT_ITEMS)


def listed(*item_ids: str) -> Fallback:
    return Fallback(kind=FallbackKind.ITEMS, item_ids=item_ids)


@pytest.fixture
def placed(snapshot: Snapshot) -> PlacedEngine:
    made = PlacedEngine.of(snapshot)
    made.know(CHEAP, NOBODY)
    return made


def cosine(placed: PlacedEngine, user_id: str, item_id: str) -> float:
    snapshot = placed.core.snapshot
    row = snapshot.users.row(user_id)
    assert row is not None
    user, item = snapshot.user_vectors[row], placed.fresh.items.vectors(placed.fresh.items.rows([item_id]))[0]
    return float(user @ item / np.linalg.norm(user) / np.linalg.norm(item))


async def test_the_mode_depends_on_the_likeness_of_user_and_context(placed: PlacedEngine) -> None:
    likeness = {item_id: cosine(placed, USER, item_id) for item_id in map("작품-{}".format, range(200))}
    near, far = max(likeness, key=likeness.__getitem__), min(likeness, key=likeness.__getitem__)
    close = TwinExpression(lambda cosine: cosine >= 0.4, "similarity(user, context)")
    asks = recipe(
        policy=(PolicyRow(when=close, mode=Mode.RELATED), PolicyRow(when=None, mode=Mode.PERSONALIZE)),
        reads_similarity=True,
    )
    for item_id, mode in ((near, Mode.RELATED), (far, Mode.PERSONALIZE)):
        answer = await placed.ask(asks, item_id, user_id=USER)
        assert answer.placement is not None
        assert answer.placement.mode is mode
        assert answer.placement.user_context_similarity == pytest.approx(likeness[item_id], abs=1e-5)
    # Without a user there is no likeness: the row cannot be decided.
    answer = await placed.ask(asks, near)
    assert answer.placement is not None
    assert answer.placement.mode is Mode.PERSONALIZE
    assert answer.placement.user_context_similarity is None


async def test_the_likeness_is_that_of_who_the_history_says_the_user_is(placed: PlacedEngine) -> None:
    likeness = TwinExpression(lambda cosine: cosine > 0.5, "similarity(user, context)")
    asks = recipe(policy=(PolicyRow(when=likeness, mode=Mode.RELATED),), reads_similarity=True)
    placed.store.histories["누구"] = [HistoryEntry(item_id=OTHER, event="liked", time_ms=1)]
    answer = await placed.ask(asks, OTHER, user_id="누구")
    assert answer.placement is not None
    assert answer.placement.mode is Mode.RELATED


async def test_how_much_taste_counts_may_depend_on_circumstances(placed: PlacedEngine) -> None:
    ratio = TwinExpression(lambda ratio: ratio * 2.0, "context.ratio")
    asks = placement(
        recipe(policy=(PolicyRow(when=None, mode=Mode.RELATED, user_impact=ratio),)),
        context={"ratio": ContextField(type="double")},
    )
    for given, impact in (({"ratio": 0.15}, 0.3), ({"ratio": 3.0}, 1.0), ({}, 0.5)):
        answer = await placed.ask(asks, SEED, user_id=USER, context=given)
        query = Query(mode=Mode.RELATED, item_ids=(SEED,), user_id=USER, user_impact=impact)
        assert answer.user_impact == pytest.approx(impact)
        assert answer.item_ids == (await placed.engine.recommend(query)).item_ids


async def test_nothing_is_shown_when_no_row_of_the_policy_holds(placed: PlacedEngine) -> None:
    never = TwinExpression(lambda known: not known, "request.user_known")
    answer = await placed.ask(recipe(policy=(PolicyRow(when=never, mode=Mode.SIMILAR),)), SEED, user_id=USER)
    assert answer.placement is not None
    assert (list(answer.item_ids), answer.placement.mode) == ([], None)
    assert answer.placement.suppressed_reason == "no row of the policy holds"


async def test_whether_user_and_context_are_known_can_be_asked(placed: PlacedEngine) -> None:
    known = TwinExpression(lambda user, context: user and context, "request.user_known", "request.context_known")
    asks = recipe(policy=(PolicyRow(when=known, mode=Mode.RELATED), PolicyRow(when=None, mode=Mode.SIMILAR)))
    modes = []
    for item_id, user_id in ((SEED, USER), (SEED, "누구"), ("없음", USER)):
        answer = await placed.ask(asks, item_id, user_id=user_id)
        assert answer.placement is not None
        modes.append(answer.placement.mode)
    assert modes == [Mode.RELATED, Mode.SIMILAR, Mode.SIMILAR]


async def test_without_a_chain_an_unknown_seed_is_answered_as_the_bare_call_does(placed: PlacedEngine) -> None:
    answer = await placed.ask(recipe(), "없음")
    bare = await placed.bare(Mode.SIMILAR, "없음")
    assert (answer.item_ids, answer.source, answer.missing_ids) == (bare.item_ids, Source.POPULAR, ("없음",))
    with pytest.raises(UnknownItemError):
        await placed.ask(recipe(strict=True), "없음")


async def test_the_chain_answers_in_its_order_without_repeats(placed: PlacedEngine) -> None:
    popular = list((await placed.bare(Mode.PERSONALIZE, user_id="누구")).item_ids)
    answer = await placed.ask(recipe(fallbacks=(listed(SEED, OTHER, "없음", SEED), POPULAR)), "없음")
    first = [SEED, OTHER]
    assert list(answer.item_ids) == first + [one for one in popular if one not in first][:8]
    assert answer.fallback_steps == [1] * 2 + [2] * 8
    assert answer.row_sources == [Source.EDITORIAL] * 2 + [Source.POPULAR] * 8
    assert answer.shortfall is None


async def test_the_chain_fills_up_what_rules_left_short(placed: PlacedEngine) -> None:
    """With one of each of five kinds only five are shown; who was most popular is under the cap, a list is not."""
    capped = recipe(caps=(Cap(name="caps[0]", field=KIND, at_most=1),), fallbacks=(POPULAR, listed(OTHER, "작품-5")))
    answer = await placed.ask(capped, SEED, options={"explain": True})
    assert len({placed.kind(item_id) for item_id in answer.item_ids[:5]}) == 5
    assert list(answer.item_ids[5:]) == [OTHER, "작품-5"]
    assert answer.fallback_steps == [0] * 5 + [2] * 2
    assert answer.explanation is not None
    assert answer.explanation.stage_counts == {"search": 200, "rules": 200, "arrange": 5, "fallback": 2}
    assert answer.shortfall is not None
    assert (answer.shortfall.returned, answer.shortfall.limiting_rule) == (7, LimitingRule.PLACEMENT)


async def test_what_a_user_did_lately_answers_for_a_seed_that_is_not_known(placed: PlacedEngine) -> None:
    placed.store.histories["누구"] = [
        HistoryEntry(item_id=item_id, event="liked", time_ms=number) for number, item_id in enumerate((SEED, OTHER))
    ]
    answer = await placed.ask(recipe(fallbacks=(RECENT, POPULAR)), "없음", user_id="누구")
    folded = Query(mode=Mode.PERSONALIZE, recent_items=(WeightedItem(item_id=SEED), WeightedItem(item_id=OTHER)))
    expected = await placed.engine.recommend(folded)
    assert answer.source is Source.FOLD_IN
    assert set(answer.item_ids) <= {*expected.item_ids, SEED, OTHER}
    assert answer.fallback_steps == [1] * 10
    # Of a user whom nobody knows the next step answers.
    assert (await placed.ask(recipe(fallbacks=(RECENT, POPULAR)), "없음", user_id="아무")).fallback_steps == [2] * 10


async def test_the_snapshots_own_history_is_folded_in_where_the_catalogue_has_none(placed: PlacedEngine) -> None:
    answer = await placed.ask(recipe(fallbacks=(RECENT,)), "없음", user_id=USER)
    assert answer.source is Source.FOLD_IN


async def test_a_chain_keeps_to_the_filter_and_to_what_is_excluded(placed: PlacedEngine) -> None:
    cheap = [item_id for item_id in map("작품-{}".format, range(300)) if placed.price(item_id) <= 49]
    dear = next(item_id for item_id in map("작품-{}".format, range(300)) if placed.price(item_id) > 49)
    steps = (listed(dear, cheap[0], cheap[1]), POPULAR)
    answer = await placed.ask(recipe(filter=CHEAP, fallbacks=steps), "없음", options={"exclude_item_ids": (cheap[1],)})
    assert answer.item_ids[0] == cheap[0]
    assert cheap[1] not in answer.item_ids
    assert all(placed.price(item_id) <= 49 for item_id in answer.item_ids)
    assert answer.fallback_steps == [1] + [2] * 9


async def test_a_filter_that_nothing_passes_is_answered_by_another_placement(placed: PlacedEngine) -> None:
    placed.others.append(placement(recipe("general", Mode.PERSONALIZE, fallbacks=(listed(OTHER),))))
    empty = recipe(filter=NOBODY, fallbacks=(POPULAR, Fallback(kind=FallbackKind.PLACEMENT, placement="general")))
    answer = await placed.ask(empty, SEED, user_id=USER)
    bare = await placed.bare(Mode.PERSONALIZE, user_id=USER, exclude_item_ids=(SEED,))
    assert answer.item_ids == bare.item_ids
    assert answer.source is Source.USER_VECTOR
    assert answer.fallback_steps == [2] * 10
    assert answer.placement is not None
    assert answer.placement.name == "home"
    answer = await placed.ask(recipe(filter=NOBODY), SEED)
    assert answer.shortfall is not None
    assert (list(answer.item_ids), answer.shortfall.limiting_rule) == ([], LimitingRule.FILTER)


async def test_caps_and_weights_hold_for_what_the_chain_adds(placed: PlacedEngine) -> None:
    rules = recipe(
        limit=9,
        caps=(Cap(name="caps[0]", field=KIND, at_most=2),),
        weights=(WeightRule(name="demotions[0]", weight=0.0, items=CHEAP),),
        fallbacks=(POPULAR,),
    )
    unknown = await placed.ask(rules, "없음")
    kinds = [placed.kind(item_id) for item_id in unknown.item_ids]
    assert len(kinds) == 9
    assert max(map(kinds.count, kinds)) <= 2
    assert all(placed.price(item_id) > 49 for item_id in unknown.item_ids)


async def test_a_chain_leaves_out_what_the_user_has_seen_whatever_was_asked_first(placed: PlacedEngine) -> None:
    fresh = await placed.ask(recipe(fallbacks=(POPULAR,)), "없음")
    seen = list(fresh.item_ids[:3])
    placed.store.histories[USER] = [
        HistoryEntry(item_id=item_id, event="viewed", time_ms=number) for number, item_id in enumerate(seen)
    ]
    answer = await placed.ask(recipe(fallbacks=(listed(seen[0], OTHER), POPULAR)), "없음", user_id=USER)
    assert not set(seen) & set(answer.item_ids)
    assert len(answer.item_ids) == 10
    again = recipe(exclude_seen=False, fallbacks=(listed(seen[0]), POPULAR))
    assert set(seen) <= set((await placed.ask(again, "없음", user_id=USER)).item_ids)


async def down(placed: PlacedEngine, asks: object, *item_ids: str) -> Answer:
    placed.store.available = False
    placed.store.error = CatalogUnavailableError("down")
    return await placed.ask(asks, *item_ids)  # type: ignore[arg-type]


async def test_a_catalogue_that_is_down_fails_the_answer_unless_the_file_says_otherwise(placed: PlacedEngine) -> None:
    unknown = Range(PRICE, maximum=3.0)
    with pytest.raises(CatalogUnavailableError):
        await down(placed, recipe(filter=unknown), SEED)

    skipping = await down(placed, recipe(filter=unknown, on_unavailable=OnUnavailable.SKIP_FILTER), SEED)
    assert Degradation.FILTER_SKIPPED in skipping.degradations
    assert skipping.item_ids == (await placed.bare(Mode.SIMILAR, SEED)).item_ids

    pinned = recipe(
        filter=unknown,
        on_unavailable=OnUnavailable.SKIP_FILTER,
        pins=(Pin(name="pins[0]", rank=1, item_id=placed.fresh.items.ids(np.arange(3_000))[-1]),),
    )
    # Whether the pin would pass the filter is not known, so it is not shown.
    assert (await down(placed, pinned, SEED)).item_ids == skipping.item_ids

    steps = (POPULAR, listed(OTHER, SEED))
    falling = recipe(filter=unknown, on_unavailable=OnUnavailable.FALLBACK, fallbacks=steps)
    answer = await down(placed, falling, SEED)
    # Whatever the filter would have kept, the list needs none; what is on screen stays out.
    assert list(answer.item_ids) == [OTHER]
    assert answer.fallback_steps == [2]
    assert Degradation.FILTER_SKIPPED in answer.degradations


async def test_a_catalogue_that_hangs_is_down_while_there_is_still_time_to_answer(placed: PlacedEngine) -> None:
    placed.store.gate.clear()
    unknown = Range(PRICE, maximum=3.0)

    async def hanging(asks: Recipe, seconds: float = 2.0) -> Answer:
        return await placed.ask(asks, SEED, deadline=Deadline.after(seconds))

    with pytest.raises(DeadlineExceededError):
        await hanging(recipe(filter=unknown), 0.5)
    skipping = await hanging(recipe(filter=unknown, on_unavailable=OnUnavailable.SKIP_FILTER))
    assert Degradation.FILTER_SKIPPED in skipping.degradations
    assert skipping.item_ids == (await placed.bare(Mode.SIMILAR, SEED)).item_ids

    # Another placement that hangs too leaves time for the list behind it.
    placed.others.append(placement(recipe(name="other", filter=unknown)))
    steps = (Fallback(kind=FallbackKind.PLACEMENT, placement="other"), listed(OTHER))
    falling = await hanging(recipe(filter=unknown, on_unavailable=OnUnavailable.FALLBACK, fallbacks=steps))
    assert list(falling.item_ids) == [OTHER]
    assert Degradation.FILTER_SKIPPED in falling.degradations


async def test_the_filter_of_the_request_is_never_skipped(placed: PlacedEngine) -> None:
    placed.store.available = False
    skipping = recipe(filter=CHEAP, on_unavailable=OnUnavailable.SKIP_FILTER)
    with pytest.raises(CatalogUnavailableError):
        await placed.ask(skipping, SEED, options={"filter": Range(PRICE, maximum=3.0)})


async def test_who_gets_which_variant_is_the_placements_word_by_unit(placed: PlacedEngine) -> None:
    assigned: list[str] = []

    def assign(unit: str) -> str:
        assigned.append(unit)
        return "b" if unit.endswith("7") else "a"

    trial = experiment("trial", {"a": recipe(limit=3), "b": recipe(limit=5)}, assign)
    seen: list[tuple[str, str, int]] = []
    for fields in (
        {"user_id": USER},
        {"user_id": USER, "experiment_unit": "device-1"},
        {},
        {"user_id": "user-1", "forced_variants": {"trial": "b", "another": "x"}},
    ):
        answer = await placed.ask(trial, SEED, **fields)
        assert answer.placement is not None
        seen.append((answer.placement.experiment, answer.placement.variant, len(answer.item_ids)))
    assert seen == [("trial", "b", 5), ("trial", "a", 3), ("trial", "a", 3), ("trial", "b", 5)]
    assert assigned[:2] == [USER, "device-1"]
    with pytest.raises(InvalidArgumentError, match="there is no variant 'c'"):
        await placed.ask(trial, SEED, forced_variants={"trial": "c"})


async def test_an_explanation_says_what_was_done_and_how_long_it_took(placed: PlacedEngine) -> None:
    rules = recipe(
        mode=Mode.RELATED,
        weights=(WeightRule(name="boosts[0]", weight=2.0, items=CHEAP),),
        diversity=0.3,
        fallbacks=(POPULAR,),
    )
    answer = await placed.ask(rules, SEED, user_id=USER, options={"explain": True, "read_mask": ("price",)})
    explanation = answer.explanation
    assert explanation is not None
    stages = [stage for stage, _ in explanation.stage_us]
    assert stages == ["policy", "catalog", "query_vectors", "search", "rules", "arrange", "metadata"]
    assert explanation.stage_counts == {"search": 200, "rules": 200, "arrange": 10}
    assert explanation.catalog_use is not None
    assert explanation.catalog_use.bitmap_hits == 1
    for rows in (explanation.likeness_scores, explanation.affinity_scores, explanation.context_similarities):
        assert len(rows) == 10
    expected = [cosine(placed, USER, item_id) for item_id in answer.item_ids]
    assert explanation.user_similarities == pytest.approx(expected, abs=1e-5)
    assert answer.placement is not None
    assert answer.placement.user_context_similarity == pytest.approx(cosine(placed, USER, SEED), abs=1e-5)


async def test_a_pinned_snapshot_holds_for_suppressed_answers_too(placed: PlacedEngine) -> None:
    with pytest.raises(SnapshotNotHereError):
        await placed.ask(recipe(mode=None), SEED, options={"snapshot_id": "another"})
