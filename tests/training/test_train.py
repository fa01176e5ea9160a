"""Known answers: even users had even items and odd users odd ones, but each misses one, which is what suits it best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from annserve.domain.model import Model
from annserve.training.interactions import Interactions
from annserve.training.pairs import pairs_of
from annserve.training.train import TrainingSettings, confidences, popularity_prior, train

MakeInteractions = Callable[[list[tuple[str, str, float]]], Interactions]
SIZE = 40


def checker_board() -> list[tuple[str, str, float]]:
    """Return the board, diagonal withheld; ids are Korean, as any script must do."""
    return [
        (f"사용자{user}", f"웹툰{item}", 0.0)
        for user in range(SIZE)
        for item in range(SIZE)
        if user % 2 == item % 2 and user != item
    ]


def settings(**changes: Any) -> TrainingSettings:
    # Eight dimensions are plenty for two groups; scaling by totals is off, for all totals are equal here.
    return TrainingSettings.model_validate(
        {"factors": 8, "popularity_share": 0.0, "fold_in_regularization": 3.0} | changes
    )


def best_new_item(model: Model, user: str) -> str:
    row = list(model.user_ids).index(user)
    scores = model.item_vectors @ model.user_vectors[row]
    assert model.histories is not None
    scores[model.histories.of(row)] = -np.inf
    return model.item_ids[int(scores.argmax())]


@pytest.mark.parametrize("trainer", ["als", "svd"])
def test_the_one_withheld_item_of_each_users_kind_suits_it_best(
    trainer: str, interactions_of: MakeInteractions
) -> None:
    model = train(pairs_of(interactions_of(checker_board())), settings(trainer=trainer))

    assert [best_new_item(model, f"사용자{user}") for user in range(SIZE)] == [f"웹툰{item}" for item in range(SIZE)]


@pytest.mark.parametrize("trainer", ["als", "svd"])
def test_equal_seeds_train_equal_vectors(trainer: str, interactions_of: MakeInteractions) -> None:
    pairs = pairs_of(interactions_of(checker_board()))

    first, second = (train(pairs, settings(trainer=trainer, seed=7)) for _ in range(2))

    np.testing.assert_array_equal(first.item_vectors, second.item_vectors)
    np.testing.assert_array_equal(first.user_vectors, second.user_vectors)


def test_a_recent_interaction_counts_more_in_training_and_in_the_prior(interactions_of: MakeInteractions) -> None:
    pairs = pairs_of(interactions_of([("u", "old", 0.0), ("u", "new", 60.0), ("v", "old", 0.0), ("v", "new", 60.0)]))
    unscaled = settings(half_life_days=60.0, item_exponent=0.0, user_exponent=0.0)

    matrix = confidences(pairs, unscaled)
    prior = popularity_prior(pairs, half_life_days=30.0)

    old, new = pairs.item_ids.index("old"), pairs.item_ids.index("new")
    assert matrix[0, new] == pytest.approx(2 * matrix[0, old])
    assert prior[new] == pytest.approx(np.log1p(2.0))
    assert prior[old] == pytest.approx(np.log1p(2.0 * 0.25))


def test_confidences_have_mean_one_and_fall_with_the_totals(interactions_of: MakeInteractions) -> None:
    popular = [(f"u{n}", "popular", 0.0) for n in range(9)]
    pairs = pairs_of(interactions_of([*popular, ("u0", "rare", 0.0)]))

    matrix = confidences(pairs, settings(item_exponent=1.0, user_exponent=0.0))

    assert matrix.data.mean() == pytest.approx(1.0)
    popular_row, rare_row = pairs.item_ids.index("popular"), pairs.item_ids.index("rare")
    assert matrix[0, rare_row] == pytest.approx(9 * matrix[0, popular_row])


def test_only_the_latest_items_make_a_users_vector(interactions_of: MakeInteractions) -> None:
    board = checker_board()
    turncoat = [("turncoat", f"웹툰{item}", float(item % 2)) for item in range(SIZE)]
    pairs = pairs_of(interactions_of(board + turncoat))

    model = train(pairs, settings(recent_items_max=SIZE // 2))

    scores = model.item_vectors @ model.user_vectors[list(model.user_ids).index("turncoat")]
    odd = [int(item_id.removeprefix("웹툰")) % 2 == 1 for item_id in model.item_ids]
    assert scores[odd].min() > scores[~np.array(odd)].max()


@pytest.mark.parametrize(
    ("name", "value"), [("factors", 0), ("likeness_exponent", 1.01), ("half_life_days", 0), ("trainer", "magic")]
)
def test_a_setting_outside_its_bounds_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        TrainingSettings.model_validate({name: value})
