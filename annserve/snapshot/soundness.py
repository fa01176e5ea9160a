"""What vectors and histories must be, whether a build is given them or a load finds them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from annserve.domain.arrays import Rows, Vectors
from annserve.domain.model import Histories

_CHUNK_ROWS = 1 << 16
_LEAST_SQUARE = float(np.finfo(np.float32).tiny)
_MOST_SQUARE = float(np.finfo(np.float32).max)


def unsound_rows(vectors: Vectors, *, zero_allowed: bool) -> Rows:
    """Return the rows that no search can score, of ``vectors`` of shape ``(n, d)``.

    A row is sound when its squared norm is a normal float32 (norm 1.1e-19 to 1.8e19), so neither NaN nor infinite
    nor, to float32 arithmetic, zero; with ``zero_allowed``, a short one is sound too.
    """
    found = [np.empty(0, np.int64)]
    for start in range(0, len(vectors), _CHUNK_ROWS):
        with np.errstate(over="ignore", invalid="ignore"):
            chunk = np.asarray(vectors[start : start + _CHUNK_ROWS], dtype=np.float32)
            squares = np.einsum("ij,ij->i", chunk, chunk, dtype=np.float64)
        # Comparisons with NaN are false, so it is never within the bounds.
        sound = squares <= _MOST_SQUARE
        if not zero_allowed:
            sound &= squares >= _LEAST_SQUARE
        found.append(np.flatnonzero(~sound) + start)
    return np.concatenate(found)


def unsound_popularity(popularity: Vectors) -> Rows:
    """Return the rows whose popularity prior is not finite and at least 0 (and with a square float32 can hold)."""
    with np.errstate(over="ignore", invalid="ignore"):
        sound = (popularity >= 0) & (np.square(popularity, dtype=np.float64) <= _MOST_SQUARE)
    return np.flatnonzero(~sound)


def history_problem(histories: Histories, *, user_count: int, item_count: int) -> str | None:
    """Return what keeps ``histories`` from being those of these users over these items, or None."""
    indptr, item_rows = histories.indptr, histories.item_rows
    if indptr.shape != (user_count + 1,) or item_rows.ndim != 1:
        return f"histories: indptr must have shape ({user_count + 1},) and item_rows one dimension"
    if indptr[0] != 0 or indptr[-1] != len(item_rows) or (np.diff(indptr) < 0).any():
        return "histories: indptr must rise from 0 to the number of item_rows"
    if len(item_rows) and not 0 <= item_rows.min() <= item_rows.max() < item_count:
        return f"histories: item_rows must be 0 to {item_count - 1}"
    return None


def gram_matrix(vectors: Vectors) -> npt.NDArray[np.float64]:
    """Return ``QᵀQ`` of ``vectors``, ``(d, d)``, summed in float64."""
    gram = np.zeros((vectors.shape[1], vectors.shape[1]))
    for start in range(0, len(vectors), _CHUNK_ROWS):
        chunk = vectors[start : start + _CHUNK_ROWS].astype(np.float64)
        gram += chunk.T @ chunk
    return gram


def is_gram_of(gram: npt.NDArray[np.float64], vectors: Vectors) -> bool:
    """Return whether ``gram`` is the `gram_matrix` of ``vectors``, at the cost of two matrix-vector products.

    One random direction tells two matrices apart: Freivalds, "Probabilistic machines can use less running time", 1977.
    """
    direction = np.random.default_rng(0).standard_normal(len(gram))
    product = np.zeros(len(gram))
    for start in range(0, len(vectors), _CHUNK_ROWS):
        chunk = vectors[start : start + _CHUNK_ROWS].astype(np.float64)
        product += (chunk @ direction) @ chunk
    return bool(np.linalg.norm(gram @ direction - product) <= 1e-6 * np.linalg.norm(product))
