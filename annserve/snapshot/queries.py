"""The queries that graphs are tuned and checked with: what will be asked, as far as a model can tell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from annserve.domain.arrays import Rows, Vectors
from annserve.domain.model import Histories

QUERIES_MAX = 1024
"""How many queries of each space there are: one half chooses a graph, the other confirms it."""

_QUERIES_MIN = 64
_BLEND_MAX = 5
_BASKET_MIN = 2


def affinity_queries(users: Vectors, items: Vectors, popularity_weight: float, *, seed: int) -> Vectors:
    """Return queries of the affinity space, ``(q, d + 1)``: a sample of users, the prior at its usual weight.

    Where there are few users or none, means of 1 to 5 random items take their place.

    Args:
        users: ``(m, d)``; ``m`` may be 0. Zero vectors are no taste, and are left out.
        items: ``(n, d)``, at least one.
        popularity_weight: The last dimension of each query.
        seed: Of the sample.
    """
    rng = np.random.default_rng(seed)
    sample = users[np.sort(rng.choice(len(users), min(len(users), QUERIES_MAX), replace=False))]
    sample = sample[sample.any(axis=1)]
    blends = [
        items[rng.integers(0, len(items), 1 + number % _BLEND_MAX)].mean(axis=0)
        for number in range(_QUERIES_MIN - len(sample))
    ]
    vectors = rng.permutation(np.vstack([sample, *blends]))
    return np.column_stack([vectors, np.full(len(vectors), popularity_weight)]).astype(np.float32)


def likeness_queries(items: Vectors, histories: Histories | None, *, seed: int) -> tuple[Vectors, Rows]:
    """Return queries of the likeness space, ``(q, d)``, and the row of a seed item of each.

    Two of four are the unit vectors of sampled items; the other two, where histories are known, are the means of 2 to 5
    items that one user had, as a basket on screen is.

    Args:
        items: ``(n, d)``, at least one, none of them zero.
        histories: What users had, in rows of ``items``.
        seed: Of the sample.
    """
    rng = np.random.default_rng(seed)
    # Half of them choose and half confirm, so a lone item is asked for twice.
    rows = np.arange(2) % len(items) if len(items) < 2 else rng.permutation(len(items))[:QUERIES_MAX]
    vectors = _units(items[rows])
    users = np.flatnonzero(np.diff(histories.indptr) >= _BASKET_MIN) if histories is not None else np.empty(0)
    if histories is not None and len(users):
        for number in np.flatnonzero(np.arange(len(rows)) % 4 >= 2):
            had = histories.of(int(rng.choice(users)))
            basket = rng.choice(had, min(len(had), int(rng.integers(_BASKET_MIN, _BLEND_MAX + 1))), replace=False)
            rows[number] = basket[0]
            vectors[number] = _units(items[basket]).mean(axis=0)
    return vectors.astype(np.float32), rows


def _units(vectors: Vectors) -> npt.NDArray[np.float64]:
    units: npt.NDArray[np.float64] = vectors.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return units
