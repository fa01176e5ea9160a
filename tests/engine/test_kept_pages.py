"""A page is put in order once for equal circumstances, and anew after whatever would have made it another one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from engine_catalog import KIND, PRICE
from placed_engine import PlacedEngine
from placement_twins import TwinExpression, placement, recipe

from annserve.domain.filter import Range
from annserve.domain.fresh import FreshChange
from annserve.engine.metadata import MetadataReader
from annserve.engine.placing.candidates import Ordered, ordered
from annserve.placements.parts import AllOf, OfItems, OfRequest
from annserve.placements.recipe import Cap, ContextField, Pin, Placement, Rotation, WeightRule
from annserve.snapshot.snapshot import Snapshot

SEED, OTHER, USER = "작품-11", "작품-23", "user-7"
CHEAP = Range(PRICE, maximum=49.0)
CAP = Cap(name="caps[0]", field=KIND, at_most=1)
DEVICE, RATIO = "context.device", "context.ratio"
ON_PHONE = TwinExpression(lambda device: device == "phone", DEVICE)
MUCH_READ = TwinExpression(lambda ratio: ratio > 0.5, RATIO)
MIXED = WeightRule(
    name="boosts[1]",
    weight=3.0,
    mixed=TwinExpression(lambda *_: True, RATIO, "item.price"),
    parts=AllOf(parts=(OfRequest(expression=MUCH_READ), OfItems(filter=CHEAP))),
)
CONTEXT = {"device": ContextField(type="string", default=""), "ratio": ContextField(type="double", default=0.0)}


def ruled(*weights: WeightRule, **fields: Any) -> Placement:
    """Return a placement whose page takes a filter's leaf, a field and a condition on the request."""
    boosts = (
        WeightRule(name="boosts[0]", weight=2.0, items=CHEAP),
        WeightRule(name="demotions[0]", weight=0.5, request=ON_PHONE),
        *weights,
    )
    one = recipe(weights=boosts, caps=(CAP,), diversity=0.5, context_names=frozenset(CONTEXT), **fields)
    return placement(one, context=CONTEXT)


class Counted:
    """Counts how often candidates are put in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr("annserve.engine.placing.placer.ordered", self)

    def __call__(self, *arguments: Any, **options: Any) -> Ordered:
        self.count += 1
        return ordered(*arguments, **options)


@pytest.fixture
def placed(snapshot: Snapshot) -> PlacedEngine:
    made = PlacedEngine.of(snapshot)
    made.know(CHEAP)
    return made


@pytest.fixture
def order(placed: PlacedEngine, monkeypatch: pytest.MonkeyPatch) -> Counted:
    assert placed is not None
    return Counted(monkeypatch)


async def shown(placed: PlacedEngine, asked: Placement, *item_ids: str, **fields: Any) -> tuple[Any, ...]:
    answer = await placed.ask(asked, *(item_ids or (SEED,)), **fields)
    assert len(answer.item_ids) >= 5
    return answer.item_ids, answer.scores, answer.row_sources, answer.shortfall


async def test_users_share_the_page_of_a_seed(placed: PlacedEngine, order: Counted) -> None:
    asked = ruled()
    first = await shown(placed, asked)
    for user_id in (None, USER, "user-8"):
        assert await shown(placed, asked, user_id=user_id) == first
    assert order.count == 1
    assert await shown(placed, asked, options={"bypass_cache": True}) == first
    assert order.count == 2


async def test_circumstances_count_by_what_rules_make_of_them(placed: PlacedEngine, order: Counted) -> None:
    asked, before = ruled(), ON_PHONE.evaluated_count
    pages = [
        await shown(placed, asked, context={"device": device}) for device in ("phone", "desk", "watch", "phone", "car")
    ]
    assert order.count == 2
    assert pages[1] == pages[2] == pages[4] != pages[0] == pages[3]
    assert ON_PHONE.evaluated_count == before + 5


async def test_what_mixed_rules_read_counts_by_its_value(placed: PlacedEngine, order: Counted) -> None:
    asked = ruled(MIXED)
    pages = [await shown(placed, asked, context={"ratio": ratio}) for ratio in (0.1, 0.9, 0.1, 0.9)]
    assert order.count == 2
    assert pages[0] == pages[2] != pages[1] == pages[3]


async def test_zeros_of_either_sign_have_pages_of_their_own(placed: PlacedEngine, order: Counted) -> None:
    is_positive = TwinExpression(lambda ratio: math.copysign(1.0, ratio) > 0.0, RATIO)
    asked = ruled(replace(MIXED, parts=AllOf(parts=(OfRequest(expression=is_positive), OfItems(filter=CHEAP)))))
    pages = [await shown(placed, asked, context={"ratio": ratio}) for ratio in (0.0, -0.0, 0.0, -0.0)]
    assert order.count == 2
    assert pages[0] == pages[2] != pages[1] == pages[3]


@pytest.mark.parametrize(
    "fields", [{"item_ids": (OTHER,)}, {"page_size": 9}, {"options": {"filter": CHEAP}}, {"options": {"explain": True}}]
)
async def test_another_question_has_a_page_of_its_own(
    placed: PlacedEngine, order: Counted, fields: dict[str, Any]
) -> None:
    asked = ruled()
    await shown(placed, asked)
    item_ids = fields.pop("item_ids", ())
    await shown(placed, asked, *item_ids, **fields)
    assert order.count == 2


async def test_another_recipe_has_a_page_of_its_own(placed: PlacedEngine, order: Counted) -> None:
    # That differ in nothing else that their pages are kept by.
    first, second = ruled(MIXED), ruled(replace(MIXED, weight=0.1))
    pages = [await shown(placed, one, context={"ratio": 0.9}) for one in (first, second, first, second)]
    assert order.count == 2
    assert pages[0] == pages[2] != pages[1] == pages[3]


@pytest.mark.parametrize(
    "rules",
    [
        {"rotation": Rotation(penalty=0.5, half_life_seconds=60.0)},
        {"exploration_share": 0.2},
        {"pins": (Pin(name="pins[0]", rank=1, item_id=OTHER),)},
    ],
    ids=lambda rules: next(iter(rules)),
)
async def test_what_may_differ_for_each_request_keeps_no_page(
    placed: PlacedEngine, order: Counted, rules: Mapping[str, Any]
) -> None:
    for number in (1, 2):
        await shown(placed, ruled(**rules), user_id=USER)
        assert order.count == number


async def test_after_each_change_the_page_is_that_of_now(placed: PlacedEngine, order: Counted) -> None:
    asked, items = ruled(), placed.core.snapshot.items
    before = await shown(placed, asked)

    def flip() -> None:
        leaf, row = placed.bitmaps.get(CHEAP), items.row(before[0][0])
        assert leaf is not None
        assert row is not None
        placed.bitmaps.flip(CHEAP, row, passes=row not in leaf.bitmap)

    def change_kind() -> None:
        for item_id in before[0]:
            placed.store.documents[item_id]["kind"] = "kind-0"
        placed.metadata.forget(before[0])

    def upsert() -> None:
        seed = placed.fresh.items.vectors(placed.fresh.items.rows([SEED]))[0]
        placed.store.documents["new-1"] = {"price": 1, "kind": "kind-9"}
        placed.fresh.apply([FreshChange(item_id="new-1", number=1, vector=(2 * seed).astype(np.float32))], 1)
        placed.know(CHEAP)

    for change in (flip, change_kind, upsert):
        count = order.count
        change()
        after = await shown(placed, asked)
        assert after != before
        assert order.count > count
        assert after == await shown(placed, asked, options={"bypass_cache": True})
        count = order.count
        assert await shown(placed, asked) == after
        assert order.count == count
        before = after


async def test_a_change_of_what_is_no_candidate_leaves_pages_alone(placed: PlacedEngine, order: Counted) -> None:
    asked = ruled(candidates=20)
    first = await shown(placed, asked)
    candidates = await placed.ask(recipe(candidates=20, limit=20), SEED)
    others = [item_id for item_id in placed.store.documents if item_id not in candidates.item_ids]
    placed.metadata.forget(others[:50])
    assert await shown(placed, asked) == first
    assert order.count == 1


async def test_what_changes_while_fields_are_read_is_not_kept(placed: PlacedEngine, order: Counted) -> None:
    asked = ruled()
    placed.store.gate.clear()
    first = asyncio.ensure_future(shown(placed, asked))
    while not placed.store.selected:
        await asyncio.sleep(0)
    changed = placed.store.selected[-1]
    for item_id in changed:
        placed.store.documents[item_id]["kind"] = "kind-0"
    placed.metadata.forget(changed)
    placed.store.gate.set()
    await asyncio.wait([first])
    assert order.count == 1
    await placed.ask(asked, SEED)
    assert order.count == 2


@pytest.mark.parametrize("forget", [MetadataReader.forget_all, None], ids=["missed", "too old"])
async def test_fields_that_are_nothing_to_go_by_make_the_page_anew(
    placed: PlacedEngine, order: Counted, forget: Callable[[MetadataReader], None] | None
) -> None:
    # By nothing but a field: leaves have bounds of their own.
    asked = placement(recipe(caps=(CAP,)))
    first = await shown(placed, asked)
    placed.bitmaps.synced_at = -math.inf
    staleness = 60.0 if forget is not None else 1e-9
    assert await shown(placed, asked, options={"max_staleness_seconds": 60.0}) == first
    assert order.count == 1
    for document in placed.store.documents.values():
        document["kind"] = "kind-0"
    if forget is not None:
        forget(placed.metadata)
    assert len((await placed.ask(asked, SEED, options={"max_staleness_seconds": staleness})).item_ids) == 1
    assert order.count == 2


async def test_a_page_without_all_its_rules_is_not_kept(placed: PlacedEngine, order: Counted) -> None:
    asked, rest = ruled(), placed.store.gate
    rest.clear()
    assert (await placed.ask(asked, SEED)).degradations
    rest.set()
    assert not (await placed.ask(asked, SEED)).degradations
    assert order.count == 2


async def test_pages_are_kept_by_what_they_take(
    snapshot: Snapshot, order: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annserve.engine.placing.kept_pages.BYTES_KEPT", 3 * (50 * 8 + (1 + 5) * 160))
    # One of each kind is shown.
    asked, placed = ruled(candidates=50), PlacedEngine.of(snapshot)
    placed.know(CHEAP)
    for seeds, count in (((1, 2, 3), 3), ((3, 2, 1), 3), ((4,), 4), ((1, 2), 4), ((3,), 5)):
        for seed in seeds:
            await shown(placed, asked, f"작품-{seed}")
        assert order.count == count
