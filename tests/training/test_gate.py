"""Each demand on a candidate is met up to its bound and not beyond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annserve.training.gate import Check, GateSettings, Judged, catalogue_check, checks_of, paired_interval

USERS = 40


def judged(recalls: Sequence[float], coverage: float = 0.5, name: str = "one") -> Judged:
    return Judged(name=name, recalls=np.array(recalls, np.float64), ndcg=0.0, coverage=coverage)


def checks(candidate: Judged, baseline: Judged | None, popular: Judged, **settings: float) -> Mapping[str, Check]:
    found = checks_of(candidate, baseline, popular, GateSettings(**settings))  # type: ignore[arg-type]
    return {check.name: check for check in found}


NOTHING = judged([0.0] * USERS)


@pytest.mark.parametrize(("recall", "passes"), [(0.47, False), (0.48, True), (0.5, True), (0.9, True)])
def test_a_share_of_the_recall_may_be_lost(recall: float, passes: bool) -> None:
    found = checks(judged([recall] * USERS), judged([0.5] * USERS), NOTHING, loss_max=0.05)

    assert found["recall"].passed is passes


def test_what_the_interval_leaves_open_is_refused() -> None:
    # As good in the mean; for half of the users far better, for half far worse.
    candidate, baseline = judged([0.0, 1.0] * (USERS // 2)), judged([1.0, 0.0] * (USERS // 2))

    assert not checks(candidate, baseline, NOTHING)["recall"].passed
    assert paired_interval(candidate, baseline)[0] == 0.0


def test_users_are_compared_each_with_herself() -> None:
    rng = np.random.default_rng(0)
    easy = rng.random(USERS)

    difference, low, high = paired_interval(judged((easy + 0.01).tolist()), judged(easy.tolist()))

    assert difference == pytest.approx(0.01)
    assert high - low < 1e-9


@given(recalls=st.lists(st.floats(0, 1), min_size=2, max_size=50))
def test_the_mean_is_within_the_interval_and_changes_sign_with_the_sides(recalls: list[float]) -> None:
    others = recalls[::-1]

    difference, low, high = paired_interval(judged(recalls), judged(others))

    assert low - 1e-9 <= difference <= high + 1e-9
    assert paired_interval(judged(others), judged(recalls))[0] == pytest.approx(-difference)


@pytest.mark.parametrize(("coverage", "passes"), [(0.24, False), (0.25, True)])
def test_half_of_the_coverage_must_stay(coverage: float, passes: bool) -> None:
    found = checks(judged([1.0] * USERS, coverage), judged([1.0] * USERS, 0.5), NOTHING)

    assert found["coverage"].passed is passes


def test_popularity_must_be_beaten_not_matched() -> None:
    same = judged([0.5] * USERS)

    assert not checks(same, None, same)["popularity"].passed
    assert checks(judged([0.6] * USERS), None, same)["popularity"].passed
    assert "popularity" not in checks(same, None, same, beat_popularity=False)


@pytest.mark.parametrize(("count", "passes"), [(29, False), (30, True)])
def test_few_users_say_nothing(count: int, passes: bool) -> None:
    few = judged([1.0] * count)

    assert checks(few, few, judged([0.0] * count))["users"].passed is passes


@pytest.mark.parametrize(("count", "passes"), [(799, False), (800, True), (1_500, True)])
def test_a_catalogue_may_shrink_by_its_share(count: int, passes: bool) -> None:
    assert catalogue_check(count, 1_000, GateSettings(shrink_max=0.2)).passed is passes
