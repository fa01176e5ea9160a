"""Bare item vectors of length 1, whose inner products are true cosines."""

from __future__ import annotations

import numpy as np

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.engine.live_items import LiveItems


def unit_vectors(items: LiveItems, rows: Rows) -> Vectors:
    """Return the bare vectors of items, each of length 1."""
    vectors = items.vectors(rows)  # A copy: rows are no slice.
    vectors /= np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, np.newaxis]
    return vectors


class KeptUnitVectors:
    """The unit vectors of ``rows``, made when they are first asked for."""

    def __init__(self, items: LiveItems, rows: Rows) -> None:
        self.rows = rows
        self._items = items
        self._made: Vectors | None = None

    def all(self) -> Vectors:
        """Return them, in the order of the rows; not to be modified."""
        if self._made is None:
            self._made = unit_vectors(self._items, self.rows)
            self._made.setflags(write=False)
        return self._made


def cosines(items: LiveItems, rows: Rows, vector: Vectors | None) -> Scores:
    """Return the cosines of items' bare vectors and ``vector``; empty without one, or where it has no length."""
    length = 0.0 if vector is None else float(np.sqrt(np.dot(vector, vector)))
    if vector is None or length == 0.0:
        return np.empty(0, np.float32)
    found: Scores = unit_vectors(items, rows) @ (vector / np.float32(length))
    return found
