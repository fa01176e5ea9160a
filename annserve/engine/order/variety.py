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
            vectors: Shape ``(n, d)``, each of length 1. Taken over: they are scaled in place.
            diversity: 0 to 1.
        """
        self._relevance: Scores = np.float32(1.0 - diversity) * _scaled(scores)
        # With its root in both factors, a product of two rows is the diversity times their cosine.
        vectors *= np.float32(math.sqrt(diversity))
        self._vectors = vectors
        self._is_any_placed = False
        self._gains: Scores = self._relevance
        self._taken: Scores = np.zeros_like(self._relevance)
        """Minus infinity for whom it is not asked about at present, 0 for the others."""
        self._asked: Scores = np.empty_like(self._relevance)
        """What `gains` returned last, to be written to again: a few arrays for each place add up."""
        self._added: Scores = np.empty_like(self._relevance)

    @property
    def gains(self) -> Scores:
        """Shape ``(n,)``; minus infinity for those who are taken out. To be read before it is asked for again."""
        return np.add(self._gains, self._taken, out=self._asked)

    def take(self, candidate: int) -> None:
        """Leave ``candidate`` out of `gains`."""
        self._taken[candidate] = -np.inf

    def put_back(self, candidate: int) -> None:
        """Have ``candidate`` in `gains` again."""
        self._taken[candidate] = 0.0

    def place(self, candidate: int) -> None:
        """Count the likeness of all with ``candidate``."""
        added = np.dot(self._vectors, self._vectors[candidate], out=self._added)
        np.subtract(self._relevance, added, out=added)
        if self._is_any_placed:
            np.minimum(self._gains, added, out=self._gains)
        else:
            self._gains, self._added, self._is_any_placed = added, np.empty_like(added), True


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
