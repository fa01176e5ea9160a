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


def cosines(items: LiveItems, rows: Rows, vector: Vectors | None) -> Scores:
    """Return the cosines of items' bare vectors and ``vector``; empty without one, or where it has no length."""
    length = 0.0 if vector is None else float(np.sqrt(np.dot(vector, vector)))
    if vector is None or length == 0.0:
        return np.empty(0, np.float32)
    found: Scores = unit_vectors(items, rows) @ (vector / np.float32(length))
    return found
