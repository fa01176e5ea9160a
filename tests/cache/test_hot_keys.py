"""What is asked about most is known, whatever else is asked."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from annserve.cache.hot_keys import Asked, HotKeys
from annserve.cache.shared import SharedCache


class Listening(SharedCache):
    """A cache whose reports are read."""

    def __init__(self) -> None:
        super().__init__(None)
        self.reports: list[dict[str, Any]] = []

    def report(self, report: dict[str, Any]) -> None:
        self.reports.append(report)


def report(items: list[tuple[str, int, int]], questions: int) -> dict[str, Any]:
    return {"questions": questions, "items": items, "requests": [], "counts": {}, "dropped": 0}


def test_workers_counts_add_up() -> None:
    hot = HotKeys()
    hot.add(report([("a", 6, 3), ("b", 2, 0)], 10))
    hot.add(report([("b", 8, 8)], 10))
    (first, second) = hot.top(5)
    assert first.item_id == "b"
    assert [first.share, first.hit_ratio] == pytest.approx([0.5, 0.8], rel=1e-3)
    assert [second.share, second.hit_ratio] == pytest.approx([0.3, 0.5], rel=1e-3)
    assert hot.top(1) == [first]


def test_nothing_is_hot_before_anything_is_asked() -> None:
    hot = HotKeys()
    hot.add(report([], 0))
    assert hot.top(5) == []


def test_the_hottest_are_found_among_far_more_items_than_are_kept_with_shares_near_the_truth() -> None:
    generator = np.random.default_rng(7)
    hot = HotKeys()
    total: dict[int, int] = {}
    for _ in range(60):
        asked = np.minimum(generator.zipf(1.2, 4_000), 200_000)
        items, counts = np.unique(asked, return_counts=True)
        for item, count in zip(items.tolist(), counts.tolist(), strict=True):
            total[item] = total.get(item, 0) + count
        hottest = sorted(zip(items.tolist(), counts.tolist(), strict=True), key=lambda one: -one[1])[:500]
        hot.add(report([(str(item), count, 0) for item, count in hottest], 4_000))
    truth = sorted(total, key=lambda item: -total[item])[:20]
    found = hot.top(20)
    assert {item.item_id for item in found[:10]} == {str(item) for item in truth[:10]}
    for item in found[:10]:
        assert item.share == pytest.approx(total[int(item.item_id)] / 240_000, abs=0.001)


def test_a_newcomer_is_not_shut_out_by_a_crowd_that_came_before() -> None:
    hot = HotKeys()
    for crowd in range(10):
        hot.add(report([(f"{crowd}-{number}", 1, 0) for number in range(500)], 500))
    for _ in range(5):
        hot.add(report([("newcomer", 10, 0), *((f"x-{number}", 1, 0) for number in range(400))], 410))
    assert hot.top(1)[0].item_id == "newcomer"


async def test_a_worker_reports_what_it_was_asked_since_the_last_time() -> None:
    cache = Listening()
    asked = Asked(cache)
    cache.counts.misses = 1
    asked.note(["a", "b"], is_hit=False)
    asked.note(["a"], is_hit=True)
    asked.report()
    cache.counts.misses = 4
    asked.note(["b"], is_hit=True)
    asked.report()
    assert cache.reports[0]["questions"] == 2
    assert cache.reports[0]["items"] == [("a", 2, 1), ("b", 1, 0)]
    assert cache.reports[1]["items"] == [("b", 1, 1)]
    assert [one["counts"]["misses"] for one in cache.reports] == [1, 3]


async def test_a_flood_of_different_items_is_reported_early_instead_of_counted_without_end() -> None:
    cache = Listening()
    asked = Asked(cache)
    for number in range(20_000):
        asked.note([str(number)], is_hit=False)
    asked.report()
    assert sum(one["questions"] for one in cache.reports) == 20_000
    assert len(cache.reports) >= 4
    assert all(len(one["items"]) <= 500 for one in cache.reports)


async def test_the_hottest_requests_are_known_again_and_none_that_was_not_offered() -> None:
    cache, hot = Listening(), HotKeys()
    asked = Asked(cache)
    for _ in range(3):
        asked.note(["often"], is_hit=False, request=("Similar", b"often"))
    asked.note(["once"], is_hit=False, request=("Similar", b"once"))
    asked.note(["personal"], is_hit=False)
    asked.note(["long"], is_hit=False, request=("Similar", b"x" * 1_000))
    asked.report()
    for report in cache.reports:
        hot.add(json.loads(json.dumps(report)))
    assert hot.top_requests(10) == [("Similar", b"often"), ("Similar", b"once")]
    assert hot.top_requests(1) == [("Similar", b"often")]
