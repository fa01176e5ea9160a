"""Diversity: maximal marginal relevance (Carbonell and Goldstein, 1998) over unit item vectors."""

from __future__ import annotations

import math

import numpy as np

from annserve.domain.arrays import Scores, Vectors


class Variety:
    """What each candidate would add to those placed so far: `gains`, kept up to date as they are placed.

    A gain is ``(1 - diversity) * relevance - diversity * cosine``: the score, scaled to 0..1 over the candidates, and
    the largest cosine with one placed. Placing costs a product of matrix and vector, O(n * d); no pair is compared
    unless one of the two is placed.
    """

    def __init__(self, scores: Scores, vectors: Vectors, diversity: float) -> None:
        """Begin with nothing placed, when gains are relevance alone.

        Args:
            scores: Shape ``(n,)``, finite.
            vectors: Shape ``(n, d)``, each of length 1. Not modified.
            diversity: 0 to 1.
        """
        self._relevance: Scores = np.float32(1.0 - diversity) * _scaled(scores)
        # With its root in both factors, a product of two rows is the diversity times their cosine.
        self._vectors: Vectors = vectors * np.float32(math.sqrt(diversity))
        self._is_any_placed = False
        self._gains: Scores = self._relevance
        self._taken: Scores = np.zeros_like(self._relevance)
        """Minus infinity for whom it is not asked about at present, 0 for the others."""

    @property
    def gains(self) -> Scores:
        """Shape ``(n,)``; minus infinity for those who are taken out."""
        gains: Scores = self._gains + self._taken
        return gains

    def take(self, candidate: int) -> None:
        """Leave ``candidate`` out of `gains`."""
        self._taken[candidate] = -np.inf

    def put_back(self, candidate: int) -> None:
        """Have ``candidate`` in `gains` again."""
        self._taken[candidate] = 0.0

    def place(self, candidate: int) -> None:
        """Count the likeness of all with ``candidate``."""
        gains: Scores = self._vectors @ self._vectors[candidate]
        np.subtract(self._relevance, gains, out=gains)
        if self._is_any_placed:
            np.minimum(self._gains, gains, out=gains)
        self._gains, self._is_any_placed = gains, True


def _scaled(scores: Scores) -> Scores:
    """Return ``scores`` from 0 for the lowest to 1 for the highest; all 0 where they do not differ."""
    if not scores.size:
        return scores
    # float32 need not hold the difference of two that it holds.
    lowest, highest = float(scores.min()), float(scores.max())
    if lowest == highest:
        return np.zeros_like(scores)
    scaled: Scores = ((scores - np.float64(lowest)) / (highest - lowest)).astype(np.float32)
    return scaled
