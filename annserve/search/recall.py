"""How much of the exact answer a graph finds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from annserve.domain.arrays import Rows, Vectors
from annserve.search.points import Points

_TIE = 1e-5
"""Scores closer than this share of the best one are ties, whose order is rounding."""


def recall_of(points: Points, queries: Vectors, exact: Rows, found: Rows) -> float:
    """Return the mean share of the ``exact`` top k that is among ``found``, 0 to 1.

    A found row counts when its score reaches that of the last exact row: among equals (items that only ever sold
    together have equal vectors) it makes no difference which are returned.

    Args:
        points: The points searched.
        queries: ``(q, dimension)``.
        exact: ``(q, k)``, best first.
        found: ``(q, k)`` or wider, in any order, no row twice for a query.
    """
    if exact.size == 0:
        return 1.0
    exact_scores = points.scores_of_each(queries, exact)
    floor = exact_scores[:, -1] - _TIE * np.abs(exact_scores[:, 0])
    hits = (points.scores_of_each(queries, found) >= floor[:, None]).sum(axis=1)
    return float(np.minimum(hits / exact.shape[1], 1.0).mean())


def without_own(rows: Rows, own_rows: Rows | None, k: int) -> Rows:
    """Return the first ``k`` columns of ranked ``rows``, ``(q, more)``, each query's own row left out."""
    if own_rows is None or rows.shape[1] == 0:
        return rows[:, :k]
    # A stable sort by "is it the own row" moves that row to the end and keeps the rest in order.
    order = np.argsort(rows == own_rows[:, None], axis=1, kind="stable")
    return np.take_along_axis(rows, order, axis=1)[:, : min(k, rows.shape[1] - 1)]


def found_of(exact: Rows, found: Rows, count: int) -> npt.NDArray[np.bool_]:
    """Return, in the shape of ``exact``, whether each row of a query is among those ``found`` for it."""
    hits = np.empty(exact.shape, np.bool_)
    is_found = np.zeros(count, np.bool_)
    for query, rows in enumerate(found):
        is_found[rows] = True
        hits[query] = is_found[exact[query]]
        is_found[rows] = False
    return hits
