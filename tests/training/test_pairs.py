from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from annserve.training.interactions import Interactions
from annserve.training.pairs import DAY_MS, pairs_of

Triples = list[tuple[str, str, float]]
MakeInteractions = Callable[[Triples], Interactions]


@pytest.fixture(scope="module")
def triples() -> Triples:
    rng = np.random.default_rng(0)
    return [
        (f"u{user}", f"i{item}", float(day))
        for user, item, day in zip(
            rng.integers(0, 5, 200), rng.integers(0, 8, 200), rng.integers(0, 30, 200), strict=True
        )
    ]


def test_every_pair_stands_once_with_its_first_and_last_time_and_its_strength(
    interactions_of: MakeInteractions, triples: Triples
) -> None:
    pairs = pairs_of(interactions_of(triples))

    expected: dict[tuple[str, str], list[float]] = {}
    for user, item, day in triples:
        expected.setdefault((user, item), []).append(day)
    rows = zip(pairs.users, pairs.items, pairs.first_times, pairs.last_times, pairs.strengths, strict=True)
    found = {
        (pairs.user_ids[user], pairs.item_ids[item]): (first / DAY_MS, last / DAY_MS, strength)
        for user, item, first, last, strength in rows
    }
    assert len(found) == len(pairs)
    assert found == {pair: (min(days), max(days), len(days)) for pair, days in expected.items()}


def test_pairs_are_ordered_by_user_and_within_a_user_the_latest_comes_last(
    interactions_of: MakeInteractions, triples: Triples
) -> None:
    pairs = pairs_of(interactions_of(triples))

    order = np.lexsort((pairs.last_times, pairs.users))
    assert (np.diff(pairs.users) >= 0).all()
    assert (pairs.last_times[order] == pairs.last_times).all()
    for user in range(len(pairs.user_ids)):
        assert (pairs.users[pairs.indptr[user] : pairs.indptr[user + 1]] == user).all()


def test_a_window_keeps_only_what_lies_in_it_and_the_positions_of_all_ids(
    interactions_of: MakeInteractions, triples: Triples
) -> None:
    interactions = interactions_of(triples)
    pairs = pairs_of(interactions, before_ms=10 * DAY_MS)

    assert pairs.last_times.max() < 10 * DAY_MS
    assert pairs.now_ms == 10 * DAY_MS
    assert pairs.user_ids is interactions.user_ids
    assert {(u, i) for u, i, day in triples if day < 10} == {
        (pairs.user_ids[user], pairs.item_ids[item]) for user, item in zip(pairs.users, pairs.items, strict=True)
    }
