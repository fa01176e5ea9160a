from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from annserve.training.evaluation import Evaluated, evaluate, ranked_lists
from annserve.training.interactions import Interactions
from annserve.training.pairs import DAY_MS
from annserve.training.train import TrainingSettings
from annserve.training.window import Window, window_of

MakeInteractions = Callable[[list[tuple[str, str, float]]], Interactions]


@pytest.fixture(scope="module")
def window(interactions_of: MakeInteractions) -> Window:
    """Two tastes that alternate; each user leaves some items of its taste for after the split."""
    rng = np.random.default_rng(0)
    past: list[tuple[str, str, float]] = []
    future: list[tuple[str, str, float]] = []
    for user in range(60):
        for item in range(user % 2, 60, 2):
            late = rng.random() < 0.3
            (future if late else past).append((f"u{user}", f"i{item}", (20.0 if late else 0.0) + rng.random()))
    for user in range(60, 70):
        future += [(f"u{user}", f"i{item}", 20.0 + item / 100) for item in range(user % 2, 60, 2)]
    return window_of(interactions_of(past + future), 10 * DAY_MS)


@pytest.fixture(scope="module")
def evaluated(window: Window) -> dict[tuple[str, str], Evaluated]:
    settings = TrainingSettings(factors=8, popularity_share=0.0, fold_in_regularization=3.0)
    return {(one.recommender, one.cohort): one for one in evaluate(window, settings, k=5)}


def test_a_model_that_knows_the_tastes_foretells_them_and_popularity_does_not(
    evaluated: dict[tuple[str, str], Evaluated],
) -> None:
    for cohort in ("warm", "unseen"):
        assert evaluated["annserve (implicit-als)", cohort].metrics.recall > 0.95
        assert evaluated["item-kNN", cohort].metrics.recall > 0.95
        assert evaluated["all-time popularity", cohort].metrics.recall < 0.75


def test_each_recommender_is_judged_on_both_cohorts(evaluated: dict[tuple[str, str], Evaluated]) -> None:
    names = {"annserve (implicit-als)", "item-kNN", "recent popularity", "all-time popularity"}

    assert set(evaluated) == {(name, cohort) for name in names for cohort in ("warm", "unseen")}
    assert evaluated["item-kNN", "unseen"].metrics.user_count == 10


def test_what_a_user_had_and_unknown_items_are_never_listed(window: Window) -> None:
    known = np.zeros(len(window.train.item_ids), dtype=bool)
    known[window.train.items] = True
    known[0] = False
    ones = np.ones(len(known))

    lists = ranked_lists(lambda _: lambda users: np.tile(ones, (users.stop - users.start, 1)), window.warm, known, 50)

    history = window.warm.history
    for user, listed in enumerate(lists):
        shown = set(listed[listed >= 0].tolist())
        had = set(history.items[history.indptr[user] : history.indptr[user + 1]].tolist())
        assert not shown & had
        assert 0 not in shown
        assert len(shown) == known.sum() - len(had & set(np.flatnonzero(known).tolist()))
