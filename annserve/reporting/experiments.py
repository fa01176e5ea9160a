"""Variants of experiments compared, and whether users were shared out as declared."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from annserve.reporting.declared import Declared
from annserve.reporting.dimensions import Dimension
from annserve.reporting.estimates import Estimate, Interval, ratio, share_mismatch
from annserve.reporting.tally import Arm, Tally

MISMATCH_P_VALUE = 0.001
"""Below it shares of users are called wrong (Fabijan et al., 2019, argue for so strict a bound: it is tested often)."""

_LOG_MAX = math.log(sys.float_info.max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A variant beside the control: the variant called ``control``, or the first by name."""

    placement: str
    experiment: str
    variant: str
    control: str
    difference: Interval | None
    """Of the conversion rates."""
    lift: Interval | None
    """The difference as a share of the control's rate; None where a rate is 0, or users are too few to tell."""
    p_value: float | None
    """Of no difference, two-sided, for one look at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """How an experiment shared out its users, as far as they were shown something."""

    placement: str
    experiment: str
    users: Mapping[str, int]
    """By variant, also of those that are declared and showed nobody anything."""
    shares: Mapping[str, float]
    """Declared, or equal. Users of a variant without any (forced ones) are not compared."""
    are_shares_declared: bool
    p_value: float
    is_mismatched: bool
    """Whether the split is no accident: then comparisons mean nothing until the cause is found."""


def comparisons(tally: Tally, confidence: float) -> tuple[Comparison, ...]:
    """Compare each variant with the control of its experiment."""
    found = []
    for (placement, experiment), variants in _experiments(tally).items():
        control = _control(variants)
        base = _conversion(tally, Arm(placement, experiment, control))
        for variant in variants:
            if variant == control:
                continue
            rate = _conversion(tally, Arm(placement, experiment, variant))
            difference = rate.minus(base)
            found.append(
                Comparison(
                    placement=placement,
                    experiment=experiment,
                    variant=variant,
                    control=control,
                    difference=difference.interval(confidence),
                    lift=_lift(rate, base, confidence),
                    p_value=difference.p_value(),
                )
            )
    return tuple(found)


def assignments(tally: Tally, given: Mapping[str, float], declared: Mapping[str, Declared]) -> tuple[Assignment, ...]:
    """Hold the numbers of users against the shares they should have.

    Args:
        tally: Who was shown what.
        given: Shares by ``experiment/variant``; the experiments that it names go by it alone.
        declared: What placements declare. Equal shares where neither says anything of all variants that were shown.
    """
    found = []
    for (placement, experiment), shown in _variants(tally).items():
        known = _known_shares(experiment, given, declared.get(placement))
        are_declared = known.keys() >= set(shown)
        shares = known if are_declared else dict.fromkeys(shown, 1.0)
        users = {variant: len(tally.users[Arm(placement, experiment, variant)]) for variant in shown}
        users = {variant: users.get(variant, 0) for variant in sorted({*shown, *shares})}
        compared = [variant for variant in users if shares[variant] > 0]
        counts = np.array([users[variant] for variant in compared], float)
        if len(compared) < 2 or not counts.sum():
            continue
        p_value = share_mismatch(counts, np.array([shares[variant] for variant in compared]))
        total = math.fsum(shares.values())
        found.append(
            Assignment(
                placement=placement,
                experiment=experiment,
                users=users,
                shares={variant: shares[variant] / total for variant in users},
                are_shares_declared=are_declared,
                p_value=p_value,
                is_mismatched=p_value < MISMATCH_P_VALUE,
            )
        )
    return tuple(found)


def _known_shares(experiment: str, given: Mapping[str, float], declared: Declared | None) -> Mapping[str, float]:
    """Return the shares by variant, as far as they are known."""
    own = {arm.partition("/")[2]: share for arm, share in given.items() if arm.partition("/")[0] == experiment}
    if own or declared is None or declared.experiment != experiment:
        return own
    return declared.shares


def _experiments(tally: Tally) -> dict[tuple[str, str], list[str]]:
    """Return the variants, in order of name, of each experiment that showed more than one."""
    return {experiment: variants for experiment, variants in _variants(tally).items() if len(variants) > 1}


def _variants(tally: Tally) -> dict[tuple[str, str], list[str]]:
    """Return the variants that showed something, in order of name, of each placement's experiment."""
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for arm in sorted(tally.users):
        if arm.experiment:
            found[arm.placement, arm.experiment].append(arm.variant)
    return dict(found)


def _control(variants: list[str]) -> str:
    return "control" if "control" in variants else variants[0]


def _conversion(tally: Tally, arm: Arm) -> Estimate:
    sums = tally.cells[Dimension.VARIANT,].of((arm.placement, f"{arm.experiment}/{arm.variant}"))
    estimate = ratio(sums[:, 0], sums[:, 2])
    assert estimate is not None  # noqa: S101 - An arm is made by its first impression.
    return estimate


def _lift(rate: Estimate, base: Estimate, confidence: float) -> Interval | None:
    if rate.value == 0 or base.value == 0:
        return None
    interval = rate.log().minus(base.log()).interval(confidence)
    if interval is None or interval.high > _LOG_MAX:
        return None
    return replace(
        interval, value=math.expm1(interval.value), low=math.expm1(interval.low), high=math.expm1(interval.high)
    )
