from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from annserve.domain.errors import InputError
from annserve.training.interactions import Interactions
from annserve.training.pairs import DAY_MS
from annserve.training.window import LOT_COUNT, UNSEEN_TARGETS_MIN, Cohort, split_time, window_of

MakeInteractions = Callable[[list[tuple[str, str, float]]], Interactions]

PAST = [("old", "a", 1.0), ("old", "b", 2.0), ("other", "c", 3.0), *(("other", f"x{n}", 3.0) for n in range(6))]
FUTURE = [
    ("old", "c", 11.0),
    ("old", "a", 12.0),  # had it before: no target
    ("old", "never seen before", 12.0),  # unknown at the split: no target
    *(("new", f"x{n}", 11.0 + n) for n in range(6)),
    ("shy", "a", 11.0),  # too few choices to judge
]


def chosen(cohort: Cohort, user: str) -> set[str]:
    row = list(cohort.history.user_ids).index(user)
    return {cohort.history.item_ids[item] for item in cohort.targets[[row]].indices.tolist()}


def had(cohort: Cohort, user: str) -> list[str]:
    row = list(cohort.history.user_ids).index(user)
    history = cohort.history
    return [history.item_ids[item] for item in history.items[history.indptr[row] : history.indptr[row + 1]].tolist()]


def test_warm_users_are_judged_by_first_interactions_with_items_known_before(interactions_of: MakeInteractions) -> None:
    window = window_of(interactions_of(PAST + FUTURE), 10 * DAY_MS)

    assert list(window.warm.history.user_ids) == ["old"]
    assert chosen(window.warm, "old") == {"c"}
    assert had(window.warm, "old") == ["a", "b"]


def test_unseen_users_are_folded_in_from_their_earlier_half_and_judged_by_the_later(
    interactions_of: MakeInteractions,
) -> None:
    window = window_of(interactions_of(PAST + FUTURE), 10 * DAY_MS)

    assert list(window.unseen.history.user_ids) == ["new"] * LOT_COUNT
    assert had(window.unseen, "new") == ["x0", "x1", "x2"]
    assert chosen(window.unseen, "new") == {"x3", "x4", "x5"}


def test_nothing_after_the_split_is_trained_on(interactions_of: MakeInteractions) -> None:
    window = window_of(interactions_of(PAST + FUTURE), 10 * DAY_MS)

    assert window.train.last_times.max() < 10 * DAY_MS
    assert len(window.train) == len(PAST)


def test_nothing_from_the_end_on_is_a_target(interactions_of: MakeInteractions) -> None:
    window = window_of(interactions_of(PAST + FUTURE), 10 * DAY_MS, end_ms=13 * DAY_MS)

    assert UNSEEN_TARGETS_MIN > 2
    assert window.unseen.targets.shape[0] == 0
    assert chosen(window.warm, "old") == {"c"}


def test_a_quantile_splits_first_interactions(interactions_of: MakeInteractions) -> None:
    repeats = [("u", "a", float(day)) for day in range(50, 90)]
    firsts = [("u", f"i{day}", float(day)) for day in range(11)]

    assert split_time(interactions_of(firsts + repeats[:0]), 0.5) == 5 * DAY_MS
    # The first of the repeats is one more first interaction; the others are none.
    assert split_time(interactions_of(firsts + repeats), 0.5) <= 6 * DAY_MS


def test_a_split_that_leaves_nothing_to_train_on_is_refused(interactions_of: MakeInteractions) -> None:
    message = (
        "nothing to train on: no interaction is older than 1970-01-01 00:00 UTC, the oldest is of 1970-01-02 00:00"
    )
    with pytest.raises(InputError, match=message):
        window_of(interactions_of(PAST + FUTURE), 0)


def test_a_split_that_leaves_nobody_to_judge_is_refused(interactions_of: MakeInteractions) -> None:
    with pytest.raises(InputError, match=r"nobody to judge: since 1970-01-15 .*; the newest .* is of 1970-01-04 00:00"):
        window_of(interactions_of(PAST), 14 * DAY_MS)


def test_a_split_without_times_is_refused(interactions_of: MakeInteractions) -> None:
    timed = interactions_of(PAST)
    untimed = Interactions(
        user_ids=timed.user_ids,
        item_ids=timed.item_ids,
        users=timed.users,
        items=timed.items,
        weights=timed.weights,
        times=None,
        report=timed.report,
    )
    with pytest.raises(InputError, match=r"name the time column \(--time-column\)"):
        split_time(untimed, 0.5)
    with pytest.raises(InputError, match=r"name the time column \(--time-column\)"):
        window_of(untimed, DAY_MS)


def test_a_basket_that_is_cut_is_cut_the_same_way_for_the_same_seed(interactions_of: MakeInteractions) -> None:
    basket = [("new", f"x{n}", 11.0) for n in range(6)]
    interactions = interactions_of(PAST + FUTURE[:1] + basket)

    first, again, other = (window_of(interactions, 10 * DAY_MS, seed=seed).unseen for seed in (0, 0, 1))

    np.testing.assert_array_equal(first.targets.toarray(), again.targets.toarray())
    assert (first.targets.toarray() != other.targets.toarray()).any()


def test_a_basket_is_cut_in_several_ways_and_what_is_not_wanted_is_known(interactions_of: MakeInteractions) -> None:
    basket = [("new", f"x{n}", 11.0) for n in range(6)]
    cohort = window_of(interactions_of(PAST + FUTURE[:1] + basket), 10 * DAY_MS).unseen

    wanted, known = cohort.targets.toarray() > 0, cohort.history.matrix().toarray() > 0
    assert cohort.lot_count == len(wanted) == LOT_COUNT
    assert len(np.unique(wanted, axis=0)) > 1
    assert not (wanted & known).any()
    assert ((wanted | known).sum(axis=1) == 6).all()
