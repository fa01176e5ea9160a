from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from annserve.reporting.estimates import line, rate_interval, ratio, share_mismatch


def test_independent_trials_get_wilsons_interval() -> None:
    successes = np.array([1.0] * 120 + [0.0] * 880)

    interval = rate_interval(np.ones(1_000), successes, 0.95)

    wilson = stats.binomtest(120, 1_000).proportion_ci(method="wilson")
    assert interval is not None
    assert interval.value == 0.12
    assert (interval.low, interval.high) == pytest.approx((wilson.low, wilson.high), abs=2e-4)


def test_trials_that_are_all_alike_within_a_group_count_as_one() -> None:
    successes = np.array([1.0] * 12 + [0.0] * 88)

    once = rate_interval(np.ones(100), successes, 0.95)
    ten_times = rate_interval(10 * np.ones(100), 10 * successes, 0.95)

    assert once is not None
    assert ten_times is not None
    assert (ten_times.low, ten_times.high) == pytest.approx((once.low, once.high), rel=0.02)


def test_no_success_still_leaves_room_for_some() -> None:
    interval = rate_interval(np.full(50, 20.0), np.zeros(50), 0.95)

    assert interval is not None
    assert interval.low == interval.value == 0.0
    assert 0.05 < interval.high < 0.1  # Fifty users were seen to do nothing, not a thousand.


def test_one_group_says_nothing_and_no_trial_is_no_rate() -> None:
    alone = rate_interval(np.array([9.0, 0.0]), np.array([3.0, 0.0]), 0.95)

    assert alone is not None
    assert (alone.low, alone.high) == (0.0, 1.0)
    assert rate_interval(np.zeros(3), np.zeros(3), 0.95) is None


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=20))
def test_a_rate_lies_within_its_interval_and_that_within_0_and_1(groups: list[tuple[int, int]]) -> None:
    trials = np.array([float(max(pair)) for pair in groups])
    successes = np.array([float(min(pair)) for pair in groups])

    interval = rate_interval(trials, successes, 0.95)

    assert (interval is None) == (trials.sum() == 0)
    assert interval is None or 0 <= interval.low <= interval.value <= interval.high <= 1


def jackknifed(values: list[float], whole: float) -> float:
    return float(np.sqrt((len(values) - 1) / len(values) * ((np.array(values) - whole) ** 2).sum()))


def test_the_standard_error_of_a_rate_is_that_of_leaving_each_user_out() -> None:
    rng = np.random.default_rng(1)
    trials = rng.integers(1, 20, 200).astype(float)
    successes = rng.binomial(trials.astype(int), rng.beta(2, 8, 200)).astype(float)

    estimate = ratio(trials, successes)

    assert estimate is not None
    without = [float(np.delete(successes, user).sum() / np.delete(trials, user).sum()) for user in range(200)]
    assert estimate.standard_error == pytest.approx(jackknifed(without, successes.sum() / trials.sum()))


def test_a_line_is_that_of_least_squares_and_its_errors_those_of_leaving_each_user_out() -> None:
    rng = np.random.default_rng(2)
    users = np.repeat(np.arange(100), 7)
    x = rng.random(700)
    y = (rng.random(700) < 0.1 + 0.2 * x + 0.1 * (users % 2)).astype(float)
    moments = np.zeros((100, 5))
    np.add.at(moments, users, np.stack([np.ones(700), x, x * x, y, x * y], axis=1))

    estimates = line(moments)

    assert estimates is not None
    height, slope = estimates
    fitted = np.polyfit(x, y, 1)
    assert [slope.value, height.value] == pytest.approx(fitted)
    without = np.array([np.polyfit(x[users != user], y[users != user], 1) for user in range(100)])
    assert slope.standard_error == pytest.approx(jackknifed(without[:, 0].tolist(), fitted[0]))
    assert height.standard_error == pytest.approx(jackknifed(without[:, 1].tolist(), fitted[1]))


def test_a_line_that_rests_on_one_user_is_none() -> None:
    moments = np.zeros((3, 5))
    moments[0] = [2, 1, 1, 1, 1]
    moments[1] = [2, 0, 0, 1, 0]
    moments[2] = [1, 0, 0, 0, 0]

    assert line(moments) is None


def test_a_line_through_one_similarity_is_none() -> None:
    x = np.full(50, 0.3)

    assert line(np.stack([np.ones(50), x, x * x, np.zeros(50), np.zeros(50)], axis=1)) is None


def test_a_user_who_counts_on_both_sides_adds_nothing_to_their_difference() -> None:
    rng = np.random.default_rng(3)
    trials = np.full(200, 5.0)
    successes = rng.binomial(5, rng.beta(1, 3, 200)).astype(float)
    side = ratio(trials, successes)

    assert side is not None
    difference = side.minus(side)
    assert (difference.value, difference.standard_error) == (0.0, 0.0)
    assert difference.p_value() is None


def test_shares_as_declared_pass_and_others_do_not() -> None:
    assert share_mismatch(np.array([7_030.0, 2_970.0]), np.array([70.0, 30.0])) > 0.1
    assert share_mismatch(np.array([7_030.0, 2_970.0]), np.array([1.0, 1.0])) < 1e-9
