from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from annserve.domain.arrays import Scores
from annserve.engine.order.weights import rotation_weights, weighted_scores
from annserve.placements.recipe import Rotation

SCORES = st.floats(width=32, allow_nan=False, allow_infinity=False)
WEIGHTS = st.floats(0, width=32, allow_nan=False, allow_infinity=False)
DAY = 86_400.0


@given(scores=arrays(np.float32, 6, elements=SCORES), weights=arrays(np.float32, (3, 6), elements=WEIGHTS))
def test_scores_stay_finite_and_only_a_weight_of_0_takes_out(scores: Scores, weights: Scores) -> None:
    weighted, is_kept = weighted_scores(scores, {f"boosts[{number}]": one for number, one in enumerate(weights)})

    assert weighted.dtype == np.float32
    assert np.isfinite(weighted).all()
    assert is_kept.tolist() == (weights > 0).all(axis=0).tolist()


@given(score=SCORES, weights=st.tuples(WEIGHTS.filter(bool), WEIGHTS.filter(bool)))
def test_a_larger_weight_never_gives_a_lower_score_whatever_its_sign(
    score: float, weights: tuple[float, float]
) -> None:
    twice = np.array([score, score], np.float32)

    lower, higher = weighted_scores(twice, {"boosts[0]": np.array(sorted(weights), np.float32)})[0]

    assert lower <= higher


@given(scores=arrays(np.float32, 6, elements=SCORES))
def test_weights_of_1_change_no_bit(scores: Scores) -> None:
    weighted, is_kept = weighted_scores(scores, {"boosts[0]": np.ones(6, np.float32)})

    assert weighted.tobytes() == scores.tobytes()
    assert is_kept.all()


def test_a_score_below_0_is_divided() -> None:
    weights = {"boosts[0]": np.array([2, 2], np.float32), "boosts[1]": np.array([0.25, 1], np.float32)}

    weighted, _ = weighted_scores(np.array([-3, -3], np.float32), weights)

    assert weighted.tolist() == [-6.0, -1.5]


def test_rotation_halves_its_penalty_every_half_life() -> None:
    ages = np.array([0, DAY, 2 * DAY, np.inf])

    weights = rotation_weights(ages, Rotation(penalty=0.8, half_life_seconds=DAY))

    assert weights.dtype == np.float32
    assert weights.tolist() == pytest.approx([0.2, 0.6, 0.8, 1.0])


def test_an_item_shown_by_a_clock_that_is_ahead_was_shown_just_now() -> None:
    weights = rotation_weights(np.array([-5.0]), Rotation(penalty=1.0, half_life_seconds=DAY))

    assert weights.tolist() == [0.0]
