"""Whatever happens in whatever order: once all changes are told, every bitmap is what a fresh evaluation finds."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from catalog_twin import LEAVES, CatalogTwin, Rows
from kept import Kept, kept

from annserve.domain.catalog import Document
from annserve.keeper.settings import KeeperSettings

SEEDS = range(500)
OPERATIONS_EACH = 80
WEIGHTS = {"write": 30, "ask": 12, "step": 30, "lose": 1, "flood": 2, "down": 1, "up": 3, "hold reads": 1, "read on": 4}
ITEMS = [f"i{number}" for number in range(11)]
"""More than have a row."""
ROW_COUNT = 8
# Every step gives the loop back, so that whatever can fall between two steps does.
RESTLESS = KeeperSettings(retry_seconds=0.0, slice_seconds=0.0, flood_changes=8, builds_at_once=2)


def test_every_bitmap_equals_a_fresh_evaluation_once_all_changes_are_told() -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        asyncio.run(_play(seed, seen))

    print(dict(seen))  # noqa: T201  (the figures of the run)
    assert seen["bitmaps compared"] > 2 * len(SEEDS)
    assert min(seen[name] for name in ("resyncs", "floods", "build_failures", "unknown_items")) > len(SEEDS) // 4, seen


async def _play(seed: int, seen: Counter[str]) -> None:
    chance = random.Random(seed)
    documents = {item_id: document for item_id in ITEMS if (document := _document(chance)) is not None}
    twin = CatalogTwin(documents)
    twin.steps_a_chunk = lambda: chance.choice([1, 1, 2, 12])
    async with kept(twin, Rows.numbered(ROW_COUNT), RESTLESS) as under_test:
        for operation in chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=OPERATIONS_EACH):
            await _do(operation, under_test, chance)
        twin.available = True
        twin.gate.set()
        await under_test.settled()

        under_test.assert_true()
        present, counters = under_test.bitmaps.present, under_test.keeper.counters
        assert present is not None, seed
        assert counters.rows_without_item == ROW_COUNT - len(present.bitmap), seed
        assert not under_test.bitmaps.stale, seed
    seen["bitmaps compared"] += 1 + len(under_test.bitmaps)
    for name in ("builds", "build_failures", "changes", "unknown_items", "flips", "resyncs", "floods"):
        seen[name] += getattr(counters, name)


async def _do(operation: str, under_test: Kept, chance: random.Random) -> None:
    twin = under_test.twin
    match operation:
        case "write":
            twin.write(chance.choice(ITEMS), _document(chance))
        case "ask":
            leaf = chance.choice(LEAVES)
            if under_test.bitmaps.get(leaf) is None:
                under_test.keeper.build(leaf)
        case "step":
            for _ in range(chance.randint(1, 6)):
                await asyncio.sleep(0)
        case "lose":
            twin.lose_changes()
            for item_id in ITEMS:  # Of this nobody tells.
                twin.documents[item_id] = {"price": chance.randint(1, 10)}
        case "flood":
            for _ in range(60):
                twin.write(chance.choice(ITEMS), _document(chance))
        case "down" | "up":
            twin.available = operation == "up"
        case "hold reads" | "read on":
            (twin.gate.set if operation == "read on" else twin.gate.clear)()


def _document(chance: random.Random) -> Document | None:
    if chance.random() < 0.2:
        return None
    document = {"price": chance.choice([1, 5, 6.5, 9, "dear", None]), "colour": chance.choice(["red", "blue", 1])}
    return {name: value for name, value in document.items() if chance.random() < 0.8}
