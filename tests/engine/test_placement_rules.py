"""What a placement's rules make of an answer: each by itself, against an answer worked out by hand."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from engine_catalog import KIND, PRICE
from placed_engine import PlacedEngine, question
from placement_twins import TwinExpression, placement, recipe

from annserve.domain.catalog import HistoryEntry
from annserve.domain.errors import CatalogUnavailableError
from annserve.domain.filter import And, Equals, Field, Range, canonical
from annserve.domain.fresh import FreshChange
from annserve.domain.query import Degradation, LimitingRule, Mode, RuleEffect, Source
from annserve.placements.parts import OfEach
from annserve.placements.recipe import (
    Cap,
    ContextField,
    HistoryExclusion,
    Pin,
    PolicyRow,
    Rotation,
    WeightRule,
)
from annserve.snapshot.snapshot import Snapshot

SEED, OTHER, USER = "작품-11", "작품-23", "user-7"
CHEAP = Range(PRICE, maximum=49.0)
FIRST = Equals(KIND, "kind-0")


def mixed_rule(expression: TwinExpression, *fields: Field) -> WeightRule:
    """Return a rule that takes out the candidates for which ``expression`` holds, evaluated for each."""
    parts = OfEach(expression=expression, fields=fields)
    return WeightRule(name="demotions[0]", weight=0.0, mixed=expression, parts=parts)


@pytest.fixture
def placed(snapshot: Snapshot) -> PlacedEngine:
    made = PlacedEngine.of(snapshot)
    made.know(CHEAP, FIRST)
    return made


async def test_a_rule_over_items_weights_the_candidates_that_pass(placed: PlacedEngine) -> None:
    rule = WeightRule(name="boosts[0]", weight=3.0, items=CHEAP)
    answer = await placed.ask(recipe(weights=(rule,)), SEED, options={"explain": True})

    found = await placed.bare(Mode.SIMILAR, SEED, k=200)
    weighted = [
        score * (3.0 if placed.price(item_id) <= 49 else 1.0)
        for item_id, score in zip(found.item_ids, found.scores, strict=True)
    ]
    best = np.argsort(-np.array(weighted), kind="stable")[:10]
    assert answer.item_ids == [found.item_ids[place] for place in best]
    assert answer.scores == pytest.approx([weighted[place] for place in best], rel=1e-6)
    assert answer.explanation is not None
    for item_id, effects in zip(answer.item_ids, answer.explanation.effects, strict=True):
        assert list(effects) == ([RuleEffect(rule="boosts[0]", weight=3.0)] if placed.price(item_id) <= 49 else [])
    assert placed.store.selected == []


async def test_a_rule_whose_leaf_is_not_known_looks_its_candidates_up_and_has_it_read(placed: PlacedEngine) -> None:
    leaf = Range(PRICE, minimum=80.0)
    rule = recipe(weights=(WeightRule(name="demotions[0]", weight=0.0, items=leaf),))
    answer = await placed.ask(rule, SEED)

    assert all(placed.price(item_id) < 80 for item_id in answer.item_ids)
    assert len(answer.item_ids) == 10
    assert answer.degradations == ()
    assert [len(ids) for ids in placed.store.selected] == [200]
    placed.builder.finish(leaf)
    assert (await placed.ask(rule, SEED)).item_ids == answer.item_ids
    assert len(placed.store.selected) == 1


async def test_rules_are_left_out_when_the_catalogue_does_not_answer_in_time(placed: PlacedEngine) -> None:
    placed.store.gate.clear()
    unknown = WeightRule(name="demotions[0]", weight=0.0, items=Range(PRICE, minimum=80.0))
    cap = Cap(name="caps[0]", field=KIND, at_most=1)
    for rules in (recipe(weights=(unknown,)), recipe(caps=(cap,))):
        answer = await placed.ask(rules, SEED)
        assert answer.degradations == (Degradation.RULES_SKIPPED,)
        assert answer.item_ids == (await placed.bare(Mode.SIMILAR, SEED)).item_ids
    placed.store.gate.set()


async def test_a_rule_over_the_request_is_evaluated_once(placed: PlacedEngine) -> None:
    night = TwinExpression(lambda hour: hour >= 22, "request.hour")
    rules = recipe(weights=(WeightRule(name="boosts[0]", weight=2.0, request=night),), reads_clock=True)
    bare = await placed.bare(Mode.SIMILAR, SEED)

    assert (await placed.ask(rules, SEED)).scores == pytest.approx(bare.scores)
    placed.now[0] = placed.now[0].replace(hour=23)
    assert (await placed.ask(rules, SEED)).scores == pytest.approx([2 * score for score in bare.scores])
    assert night.evaluated_count == 2


async def test_the_hour_and_the_day_are_those_of_the_placements_time_zone(placed: PlacedEngine) -> None:
    read: list[tuple[object, ...]] = []

    def note(*values: object) -> bool:
        read.append(values)
        return True

    clock = TwinExpression(note, "request.hour", "request.weekday")
    rules = recipe(policy=(PolicyRow(when=clock, mode=Mode.SIMILAR),), reads_clock=True)
    await placed.ask(placement(rules, time_zone="Pacific/Kiritimati"), SEED)
    assert read == [(2.0, "thursday")]


async def test_a_mixed_rule_sees_each_candidate_beside_the_request(placed: PlacedEngine) -> None:
    mixed = TwinExpression(lambda most, price: price > most, "context.most", "item.price")
    rule = mixed_rule(mixed, PRICE)
    under_test = placement(recipe(weights=(rule,)), context={"most": ContextField(type="double", default=30.0)})
    assert all(placed.price(item_id) <= 30 for item_id in (await placed.ask(under_test, SEED)).item_ids)
    answer = await placed.ask(under_test, SEED, context={"most": 9.0})
    assert all(placed.price(item_id) <= 9 for item_id in answer.item_ids)
    assert 100 < mixed.evaluated_count <= 200  # Once for candidates of one price, of which there are a hundred.
    assert len(placed.store.selected) == 1  # Fields are kept by row.


async def test_fields_of_candidates_are_kept_until_they_change(placed: PlacedEngine) -> None:
    mixed = TwinExpression(lambda price: price != 5, "item.price")
    rules = recipe(weights=(mixed_rule(mixed, PRICE),))
    first = await placed.ask(rules, SEED)
    changed = (await placed.bare(Mode.SIMILAR, SEED)).item_ids[0]
    assert changed not in first.item_ids or placed.price(changed) == 5
    placed.store.documents[changed]["price"] = 5
    placed.metadata.forget([changed])
    assert (await placed.ask(rules, SEED)).item_ids[0] == changed
    assert [len(ids) for ids in placed.store.selected] == [200, 1]
    placed.metadata.forget_all()
    await placed.ask(rules, SEED)
    assert len(placed.store.selected[-1]) == 200


async def test_a_mixed_rule_reads_cosines_with_user_and_context(placed: PlacedEngine) -> None:
    near = TwinExpression(
        lambda taste, likeness: taste < likeness, "similarity(user, item)", "similarity(context, item)"
    )
    rules = recipe(mode=Mode.RELATED, weights=(mixed_rule(near),), candidates=100)
    answer = await placed.ask(rules, SEED, user_id=USER, options={"explain": True})
    assert answer.explanation is not None
    assert answer.item_ids
    pairs = zip(answer.explanation.user_similarities, answer.explanation.context_similarities, strict=True)
    assert all(user >= context for user, context in pairs)


async def test_a_placement_shows_no_more_of_one_value_than_its_cap(placed: PlacedEngine) -> None:
    capped = recipe(caps=(Cap(name="caps[0]", field=KIND, at_most=1),))
    answer = await placed.ask(capped, SEED)
    kinds = [placed.kind(item_id) for item_id in answer.item_ids]
    assert sorted(kinds) == [f"kind-{number}" for number in range(5)]
    assert answer.shortfall is not None
    assert answer.shortfall.limiting_rule is LimitingRule.PLACEMENT
    assert (answer.shortfall.requested, answer.shortfall.returned) == (10, 5)
    assert answer.shortfall.eligible == 2_999


async def test_a_weight_of_0_takes_out(placed: PlacedEngine) -> None:
    rules = recipe(weights=(WeightRule(name="demotions[0]", weight=0.0, items=CHEAP),), candidates=10, limit=10)
    answer = await placed.ask(rules, SEED)
    bare = await placed.bare(Mode.SIMILAR, SEED)
    assert answer.item_ids == [item_id for item_id in bare.item_ids if placed.price(item_id) > 49]
    assert answer.shortfall is not None
    assert answer.shortfall.limiting_rule is LimitingRule.PLACEMENT


async def test_diversity_brings_in_what_is_unlike_the_rest(placed: PlacedEngine) -> None:
    plain, varied = [await placed.ask(recipe(diversity=share), SEED) for share in (0.0, 0.9)]
    core = placed.core
    spreads = []
    for answer in (plain, varied):
        vectors = core.fresh.items.vectors(core.fresh.items.rows(answer.item_ids))
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        spreads.append(float((units @ units.T).mean()))
    assert plain.item_ids == (await placed.bare(Mode.SIMILAR, SEED)).item_ids
    assert spreads[1] < spreads[0]


async def test_a_pin_is_at_its_rank_when_it_holds_and_passes(placed: PlacedEngine) -> None:
    far = (await placed.bare(Mode.SIMILAR, SEED, k=3_000)).item_ids[-1]
    phone = TwinExpression(lambda device: device == "phone", "context.device")
    pinned = placement(
        recipe(
            pins=(Pin(name="pins[0]", rank=3, item_id=far, when=phone), Pin(name="pins[1]", rank=1, item_id="gone"))
        ),
        context={"device": ContextField(type="string")},
    )
    bare = list((await placed.bare(Mode.SIMILAR, SEED)).item_ids)
    answer = await placed.ask(pinned, SEED, context={"device": "phone"}, options={"explain": True})
    assert answer.item_ids == [*bare[:2], far, *bare[2:9]]
    assert [source is Source.EDITORIAL for source in answer.row_sources] == [place == 2 for place in range(10)]
    assert answer.explanation is not None
    assert list(answer.explanation.effects[2]) == [RuleEffect(rule="pins[0]")]

    assert (await placed.ask(pinned, SEED)).item_ids == bare
    excluded = await placed.ask(pinned, SEED, context={"device": "phone"}, options={"exclude_item_ids": (far,)})
    assert excluded.item_ids == bare
    placed.store.documents[far]["price"] = 99
    placed.know(CHEAP)
    filtered = await placed.ask(pinned, SEED, context={"device": "phone"}, options={"filter": CHEAP})
    assert far not in filtered.item_ids
    assert len(filtered.item_ids) == 10


async def test_what_a_user_was_shown_lately_gives_way(placed: PlacedEngine) -> None:
    rotating = recipe(mode=Mode.PERSONALIZE, rotation=Rotation(penalty=1.0, half_life_seconds=3_600.0))
    first = await placed.ask(rotating, user_id=USER)
    placed.shown.show(USER, first.item_ids[:3])
    second = await placed.ask(rotating, user_id=USER)
    assert not set(first.item_ids[:3]) & set(second.item_ids)
    assert second.item_ids[:7] == first.item_ids[3:]
    placed.shown.show(USER, first.item_ids[:3], age_seconds=1e6)
    assert (await placed.ask(rotating, user_id=USER)).item_ids == first.item_ids
    placed.shown.error = CatalogUnavailableError("down")
    answer = await placed.ask(rotating, user_id=USER)
    assert answer.item_ids == first.item_ids
    assert answer.degradations == (Degradation.HISTORY_UNAVAILABLE,)


async def test_exploration_gives_fresh_items_their_share_of_the_page(placed: PlacedEngine) -> None:
    random = np.random.default_rng(5)
    fresh_ids = [f"new-{number}" for number in range(6)]
    # Far from everything, so that no search for what is like the seed finds them.
    seed = placed.fresh.items.vectors(placed.fresh.items.rows([SEED]))[0]
    changes = [
        FreshChange(item_id=item_id, number=number, vector=(random.normal(size=16) * 0.1 - seed).astype(np.float32))
        for number, item_id in enumerate(fresh_ids)
    ]
    placed.fresh.apply(changes, 1)
    for item_id in fresh_ids:
        placed.store.documents[item_id] = {"price": 10, "kind": "kind-0"}
    placed.bitmaps.present = None  # Read when it is asked for.
    answer = await placed.ask(recipe(exploration_share=0.3), SEED)
    explored = [source is Source.EXPLORATION for source in answer.row_sources]
    assert [item_id in fresh_ids for item_id in answer.item_ids] == explored
    assert sum(explored) == 3
    assert placed.engine.basis(question("home", SEED)) is None


async def test_the_classic_rule_leaves_out_the_users_last_dislikes(placed: PlacedEngine) -> None:
    bare = list((await placed.bare(Mode.SIMILAR, SEED, filter=CHEAP, k=20)).item_ids)
    disliked = [*bare[:6], "작품-unknown"]
    placed.store.histories[USER] = [
        *(HistoryEntry(item_id=item_id, event="disliked", time_ms=number) for number, item_id in enumerate(disliked)),
        HistoryEntry(item_id=bare[8], event="liked", time_ms=99),
    ]
    classic = recipe(
        filter=CHEAP, limit=12, history_exclusions=(HistoryExclusion(event="disliked", last=5),), exclude_seen=False
    )
    answer = await placed.ask(classic, SEED, user_id=USER)
    assert answer.item_ids == [bare[0], *bare[6:17]]
    assert (await placed.ask(classic, SEED)).item_ids == bare[:12]


async def test_filters_of_file_and_request_must_both_pass(placed: PlacedEngine) -> None:
    answer = await placed.ask(recipe(filter=CHEAP), SEED, options={"filter": FIRST})
    both = canonical(And((CHEAP, FIRST)))
    assert answer.item_ids == (await placed.bare(Mode.SIMILAR, SEED, filter=both)).item_ids
    assert all(placed.price(one) <= 49 and placed.kind(one) == "kind-0" for one in answer.item_ids)


async def test_what_the_request_says_wins_over_the_file(placed: PlacedEngine) -> None:
    said = recipe(mode=Mode.PERSONALIZE, limit=4, exclude_seen=False, popularity_weight=5.0)
    answer = await placed.ask(said, user_id=USER)
    bare = await placed.bare(Mode.PERSONALIZE, user_id=USER, k=4, exclude_seen=False, popularity_weight=5.0)
    assert answer.item_ids == bare.item_ids
    answer = await placed.ask(
        said, user_id=USER, page_size=6, exclude_seen=True, options={"popularity_weight": 0.0, "exact": True}
    )
    bare = await placed.bare(Mode.PERSONALIZE, user_id=USER, k=6, popularity_weight=0.0, exact=True)
    assert answer.item_ids == bare.item_ids


async def test_what_is_on_screen_is_not_recommended_whatever_is_asked(placed: PlacedEngine) -> None:
    best = (await placed.bare(Mode.PERSONALIZE, user_id=USER)).item_ids[0]
    answer = await placed.ask(recipe(mode=Mode.PERSONALIZE), best, user_id=USER)
    assert best not in answer.item_ids
    assert len(answer.item_ids) == 10


async def test_metadata_comes_with_the_rows_that_rules_chose(placed: PlacedEngine) -> None:
    rules = recipe(weights=(WeightRule(name="boosts[0]", weight=3.0, items=CHEAP),))
    answer = await placed.ask(rules, SEED, options={"read_mask": ("price",)})
    assert [dict(one) for one in answer.metadata] == [{"price": (placed.price(one),)} for one in answer.item_ids]


async def test_rules_under_a_filter_that_is_not_known_yet_hold_for_what_passes_it(placed: PlacedEngine) -> None:
    leaf = Range(PRICE, maximum=70.0)
    rules = recipe(filter=leaf, caps=(Cap(name="caps[0]", field=KIND, at_most=2),))
    asked = asyncio.ensure_future(placed.ask(rules, SEED))
    answer = await asked
    kinds = [placed.kind(item_id) for item_id in answer.item_ids]
    assert len(answer.item_ids) == 10
    assert all(kinds.count(kind) == 2 for kind in kinds)
    assert all(placed.price(item_id) <= 70 for item_id in answer.item_ids)
