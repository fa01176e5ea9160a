"""Estimates that are honest about users who come back: intervals and tests from the spread between groups of users.

Impressions of one user are alike, so they are no independent trials. Users are put into groups at random (by hash),
and everything is estimated from sums per group. An estimate comes with the *influence* of each group, what it changes
by when the group is left out, and its variance is ``(g - 1) / g * sum(influence ** 2)`` over the ``g`` groups that have
any impressions: the jackknife by cluster, which of the cluster-robust variances does best where users are few or some
count for many (MacKinnon, Nielsen and Webb, 2023). With several users to a group it is as true, only less exact (random
groups; Wolter, Introduction to Variance Estimation, 2007). Quantiles are Student's, ``g - 1`` degrees of freedom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

Sums: TypeAlias = npt.NDArray[np.float64]

_VARIANCE_MIN = 1e-9
"""Of x, where there is any: rounding leaves some 1e-16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate and the interval about it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """A number, and how far each group of users moves it."""

    value: float
    influence: Sums
    """``(groups,)``: it, less what it is without the group."""
    group_count: int
    """Groups that it rests on: of two estimates compared, the fewer."""

    @property
    def standard_error(self) -> float:
        """Its standard error; NaN from fewer than two groups."""
        if self.group_count < 2:
            return math.nan
        return math.sqrt((self.group_count - 1) / self.group_count * float(self.influence @ self.influence))

    def minus(self, other: Estimate) -> Estimate:
        """Return the difference. A user who counts in both is allowed for: her influences are taken together."""
        return Estimate(
            value=self.value - other.value,
            influence=self.influence - other.influence,
            group_count=min(self.group_count, other.group_count),
        )

    def log(self) -> Estimate:
        """Return its logarithm (delta method); the value must be above 0."""
        return Estimate(value=math.log(self.value), influence=self.influence / self.value, group_count=self.group_count)

    def interval(self, confidence: float) -> Interval | None:
        """Return the symmetric interval; None from fewer than two groups."""
        if self.group_count < 2:
            return None
        reach = float(stats.t.ppf((1 + confidence) / 2, self.group_count - 1)) * self.standard_error
        return Interval(value=self.value, low=self.value - reach, high=self.value + reach)

    def p_value(self) -> float | None:
        """Return the two-sided p-value against 0; None where there is no spread to judge by."""
        error = self.standard_error
        if not error > 0:
            return None
        return float(2 * stats.t.sf(abs(self.value) / error, self.group_count - 1))


def ratio(trials: Sums, successes: Sums) -> Estimate | None:
    """Return successes per trial from sums per group, shape ``(groups,)`` each; None without trials."""
    total = float(trials.sum())
    if total == 0:
        return None
    value = float(successes.sum()) / total
    rest = total - trials
    # value - (successes without the group) / rest, in a form that loses no digits.
    influence = np.divide(successes - value * trials, rest, out=np.zeros_like(rest), where=rest > 0)
    return Estimate(value=value, influence=influence, group_count=int(np.count_nonzero(trials)))


def rate_interval(trials: Sums, successes: Sums, confidence: float) -> Interval | None:
    """Return the share of trials that succeeded with Wilson's interval at the effective number of trials.

    Trials count for less the more alike those of a group are: ``n / max(1, design effect)`` (Korn and Graubard, 1998;
    Dean and Pagano, 2015, find it among the best for rates in clusters). So an interval stays within 0 and 1 and means
    something where few or none succeeded; where groups do not differ at all, as then, each counts as one trial.
    """
    estimate = ratio(trials, successes)
    if estimate is None:
        return None
    groups, share = estimate.group_count, estimate.value
    if groups < 2:
        return Interval(value=share, low=0.0, high=1.0)
    variance = estimate.standard_error**2
    effective = min(float(trials.sum()), share * (1 - share) / variance) if variance > 0 else float(groups)
    square = float(stats.t.ppf((1 + confidence) / 2, groups - 1)) ** 2
    middle = (share + square / (2 * effective)) / (1 + square / effective)
    reach = math.sqrt(square * (share * (1 - share) + square / (4 * effective)) / effective) / (1 + square / effective)
    return Interval(value=share, low=max(0.0, min(share, middle - reach)), high=min(1.0, max(share, middle + reach)))


def line(moments: Sums) -> tuple[Estimate, Estimate] | None:
    """Return height at 0 and slope of the least squares line of y over x, robust to users' likeness.

    Of a y that is 0 or 1 it is the linear probability model: the slope is what the rate changes by per unit of x.

    Args:
        moments: ``(groups, 5)``: per group the count and the sums of x, x², y and xy.

    Returns:
        Both estimates; None where all x are one, or would be without one of the groups.
    """
    total = moments.sum(axis=0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        lines, variances = _lines(np.concatenate([total, total - moments]))
    if not np.all(variances > _VARIANCE_MIN):
        return None
    groups = int(np.count_nonzero(moments[:, 0]))
    height, slope = (Estimate(value=float(one[0]), influence=one[0] - one[1:], group_count=groups) for one in lines)
    return height, slope


def _lines(moments: Sums) -> tuple[tuple[Sums, Sums], Sums]:
    """Return height and slope of each row's line, and the variance of its x."""
    count, x, xx, y, xy = moments.T
    determinant = count * xx - x * x
    return ((xx * y - x * xy) / determinant, (count * xy - x * y) / determinant), determinant / count**2


def share_mismatch(counts: Sums, shares: Sums) -> float:
    """Return the p-value of ``counts`` units under ``shares`` (chi-square): tiny means that assignment is broken."""
    return float(stats.chisquare(counts, counts.sum() * shares / shares.sum()).pvalue)
