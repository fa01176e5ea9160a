"""Weights: factors that promote, demote or take out candidates, whatever the sign of their scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from annserve.domain.arrays import Scores
from annserve.placements.recipe import Rotation

Flags: TypeAlias = npt.NDArray[np.bool_]
"""A truth for each candidate."""

_LEAST, _MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def weighted_scores(scores: Scores, weights: Mapping[str, Scores]) -> tuple[Scores, Flags]:
    """Return the scores after all ``weights``, and whom they leave: a weight of 0 takes out.

    A score below 0 is divided instead of multiplied, so a larger weight never gives a lower score; a score of 0 stays.
    Scores that float32 cannot hold become the largest, or lowest, that it can: none is infinite or NaN.

    Args:
        scores: Shape ``(n,)``, finite. Not modified.
        weights: By rule, shape ``(n,)`` each, finite, at least 0.
    """
    if not weights:
        return scores, np.ones(len(scores), np.bool_)
    # Done in place, and only what is needed: on a few hundred scores every call of numpy costs more than its work.
    first, *others = weights.values()
    factors = first.astype(np.float64)
    for weight in others:
        factors *= weight
    is_kept: Flags = factors > 0
    if not is_kept.all():
        # A product of weights above 0 may come to 0 too, and takes out nobody.
        is_kept = np.logical_and.reduce([weight > 0 for weight in weights.values()])
    np.maximum(factors, _LEAST, out=factors)
    np.minimum(factors, _MOST, out=factors)  # Infinity times a score of 0 would be NaN.
    is_below = scores < 0
    moved = np.where(is_below, scores / factors, scores * factors) if is_below.any() else scores * factors
    np.maximum(moved, -_MOST, out=moved)
    np.minimum(moved, _MOST, out=moved)
    return moved.astype(np.float32), is_kept


def rotation_weights(ages_seconds: npt.NDArray[np.float64], rotation: Rotation) -> Scores:
    """Return ``1 - penalty * 0.5 ** (age / half_life)`` for each age, shape kept.

    Args:
        ages_seconds: How long ago the user was last shown each item; infinite where never. One below 0, of a clock
            that is ahead, counts as 0.
        rotation: Its half-life is above 0.
    """
    faded = np.exp2(-np.maximum(ages_seconds, 0.0) / rotation.half_life_seconds)
    weights: Scores = (1.0 - rotation.penalty * faded).astype(np.float32)
    return weights
