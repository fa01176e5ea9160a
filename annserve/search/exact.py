"""Exact search: the oracle that graphs are tested against, and the fallback when a graph cannot keep its promise."""

from __future__ import annotations

import numpy as np

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.search.points import Points

CHUNK_ROWS = 1 << 16
"""Rows scored between two looks at the deadline: 1 to 2 ms of work at 64 dimensions."""

_QUERY_BLOCK = 64
_GROUPS_MIN = 256
_SORTED_BEYOND = 64
"""So few scores too many are sorted in the time it takes to leave them out."""


def top_k(scores: Scores, k: int) -> tuple[Rows, Scores]:
    """Return the rows of the ``k`` largest scores, best first, and those scores.

    Args:
        scores: Shape ``(n,)``, no NaN. Not modified.
        k: How many to return, at least 0. Fewer come back when ``n < k``.

    Returns:
        Rows and scores, both of shape ``(min(k, n),)``. Equal scores are in order of row.
    """
    k = min(k, len(scores))
    if k == 0:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    # Of the largest scores of groups, the k-th best is no better than the k-th best of all: one comparison drops nearly
    # every row. Each group takes rows from everywhere, since rows that lie together may be alike.
    group_size = len(scores) // max(4 * k, _GROUPS_MIN)
    if group_size > 1:
        group_count = len(scores) // group_size
        largest = scores[: group_size * group_count].reshape(group_size, group_count).max(axis=0)
        rows = (scores >= _kth_best(largest, k)).nonzero()[0]
        scores = scores[rows]
    else:
        rows = np.arange(len(scores))
    if len(scores) > k + _SORTED_BEYOND:
        kept = (scores >= _kth_best(scores, k)).nonzero()[0]
        rows, scores = rows[kept], scores[kept]
    # Rows ascend here and the sort is stable, so ties stay in order of row.
    order = (-scores).argsort(kind="stable")[:k]
    return rows[order], scores[order]


def exact_scores(
    points: Points, query: Vectors, rows: Rows | None = None, *, deadline: Deadline = NO_DEADLINE
) -> Scores:
    """Return the scores of ``rows`` (all by default) for one query, looking at the deadline between chunks.

    Raises:
        DeadlineExceededError: the deadline passed on the way.
    """
    count = len(points) if rows is None else len(rows)
    if count <= CHUNK_ROWS:
        return points.scores(query, rows)
    scores = np.empty(count, np.float32)
    for start in range(0, count, CHUNK_ROWS):
        deadline.check("exact search")
        chunk = slice(start, start + CHUNK_ROWS)
        scores[chunk] = points.scores(query, chunk if rows is None else rows[chunk])
    return scores


def exact_top_k(points: Points, query: Vectors, k: int) -> tuple[Rows, Scores]:
    """Return the ``k`` best rows for one query, as `top_k` does."""
    return top_k(exact_scores(points, query), k)


def exact_top_k_batch(
    points: Points, queries: Vectors, k: int, deadline: Deadline = NO_DEADLINE
) -> tuple[Rows, Scores]:
    """Return the ``k`` best rows for each of many queries, rows and scores of shape ``(q, min(k, n))``.

    Memory stays at a few tens of megabytes whatever ``q`` and ``n``.
    """
    k = min(k, len(points))
    rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), _QUERY_BLOCK):
        block = slice(start, start + _QUERY_BLOCK)
        for query, (best_rows, best_scores) in enumerate(_top_k_of_block(points, queries[block], k, deadline), start):
            rows[query], scores[query] = best_rows, best_scores
    return rows, scores


def _top_k_of_block(points: Points, queries: Vectors, k: int, deadline: Deadline) -> list[tuple[Rows, Scores]]:
    found: list[list[tuple[Rows, Scores]]] = [[] for _ in queries]
    for start in range(0, len(points), CHUNK_ROWS):
        deadline.check("exact search")
        for parts, scores in zip(found, points.scores_batch(queries, slice(start, start + CHUNK_ROWS)), strict=True):
            rows, best = top_k(scores, k)
            parts.append((rows + start, best))
    return [_merged(parts, k) for parts in found]


def _merged(parts: list[tuple[Rows, Scores]], k: int) -> tuple[Rows, Scores]:
    """Merge the best of each chunk. Ties keep the order of chunks, and so of rows."""
    rows, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = (-scores).argsort(kind="stable")[:k]
    return rows[order], scores[order]


def _kth_best(scores: Scores, k: int) -> np.float32:
    best: np.float32 = np.partition(scores, len(scores) - k)[len(scores) - k]
    return best
