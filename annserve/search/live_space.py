"""One space as it is now: the index of what it was, and what has changed since, searched exactly beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from pyroaring import BitMap

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.search.delta import Delta
from annserve.search.exact import exact_scores, exact_top_k_batch, top_k
from annserve.search.index import Others, SearchResult, SpaceIndex
from annserve.search.points import Points
from annserve.search.restriction import Restriction


class LiveSpace:
    """Searches what is there now. Immutable: threads may share it, and it stays as it is while others follow it.

    What is hidden of the index restricts it, rather than being excluded: a restriction is planned for by how much it
    leaves, exclusion for the worst, that all of it would rank first.
    """

    def __init__(self, index: SpaceIndex, delta: Delta, points: Points) -> None:
        """Join ``index`` with ``delta``, whose rows are ``points`` in this space."""
        self._index = index
        self._delta = delta
        self._points = points

    def search(
        self,
        query: Vectors,
        k: int,
        *,
        restriction: Restriction | None = None,
        excluded: Rows | None = None,
        ef_search: int | None = None,
        exact: bool = False,
        fallback_us_max: float = math.inf,
        deadline: Deadline = NO_DEADLINE,
    ) -> SearchResult:
        """Return the ``min(k, eligible)`` best rows for ``query``, as `SpaceIndex.search` does.

        Rows, allowed or excluded, may also be those of items that came since, or be nobody's.
        """
        count = self._index.count
        found = self._index.search(
            query,
            k,
            restriction=self._delta.of_space(restriction),
            excluded=None if excluded is None else excluded[excluded < count],
            ef_search=ef_search,
            exact=exact,
            fallback_us_max=fallback_us_max,
            deadline=deadline,
        )
        rows, scores, eligible_count = self._fresh(query, k, restriction, excluded, deadline)
        if eligible_count:
            rows, scores = np.concatenate([found.rows, rows]), np.concatenate([found.scores, scores])
            best = np.lexsort((rows, -scores))[:k]
            rows, scores = rows[best], scores[best]
        else:
            rows, scores = found.rows, found.scores
        return SearchResult(
            rows=rows, scores=scores, path=found.path, eligible_count=found.eligible_count + eligible_count
        )

    def search_others(self, queries: Vectors, own_rows: Sequence[int], k: int) -> Sequence[Others | None] | None:
        """Return what `SpaceIndex.search_others` does, None for a query whose answer is not what it was.

        That is one in which an item appeared that is gone or has changed, or one that came would appear now.
        """
        found = self._index.search_others(queries, own_rows, k)
        if found is None:
            return None
        delta = self._delta
        if not len(delta.rows):
            return [None if _has_any(delta.hidden, rows) else (rows, scores) for rows, scores in found]
        # A seed that changed is compared with itself, which leaves it to `search` for nothing.
        best = exact_top_k_batch(self._points, queries, 1)[1][:, 0].tolist()
        return [
            None if newest >= scores[-1] or _has_any(delta.hidden, rows) else (rows, scores)
            for newest, (rows, scores) in zip(best, found, strict=True)
        ]

    def others_us(self, k: int) -> float:
        """Return about what a query costs in `search_others`; see `SpaceIndex.others_us`."""
        index = self._index
        # Queries that come together share what a scan costs whatever its rows.
        return index.others_us(k) + index.scan_us(len(self._delta.rows)) - index.scan_us(0)

    def score_rows(self, query: Vectors, rows: Rows) -> Scores:
        """Return the exact scores of ``rows``, all of items that are there, in the order given."""
        found, places = self._delta.find(rows)
        if not len(found):
            return self._index.score_rows(query, rows)
        scores = np.empty(len(rows), np.float32)
        scores[found] = self._points.scores(np.asarray(query, np.float32), places)
        others = np.ones(len(rows), np.bool_)
        others[found] = False
        scores[others] = self._index.score_rows(query, rows[others])
        return scores

    def estimated_us(
        self,
        k: int,
        *,
        restriction: Restriction | None = None,
        excluded_count: int = 0,
        ef_search: int | None = None,
        exact: bool = False,
    ) -> float:
        """Return about how many microseconds `search` may take, on the high side; see `SpaceIndex.estimated_us`."""
        return self._index.scan_us(len(self._delta.rows)) + self._index.estimated_us(
            k,
            restriction=self._delta.of_space(restriction),
            excluded_count=excluded_count,
            ef_search=ef_search,
            exact=exact,
        )

    def _fresh(
        self, query: Vectors, k: int, restriction: Restriction | None, excluded: Rows | None, deadline: Deadline
    ) -> tuple[Rows, Scores, int]:
        """Return the best rows of what has changed, their scores, and how many could have been returned."""
        delta = self._delta
        places, struck = delta.eligible(restriction, excluded)
        eligible_count = len(delta.rows if places is None else places) - len(struck)
        if not eligible_count:
            return delta.rows[:0], delta.popularity[:0], 0
        scores = exact_scores(self._points, np.asarray(query, np.float32), deadline=deadline)
        scores[struck] = -np.inf
        if places is None:
            best, scores = top_k(scores, min(k, eligible_count))
            return delta.rows[best], scores, eligible_count
        best, scores = top_k(scores[places], min(k, eligible_count))
        return delta.rows[places[best]], scores, eligible_count


def _has_any(hidden: BitMap, rows: Sequence[int]) -> bool:
    return bool(hidden) and any(row in hidden for row in rows)


AnySpace: TypeAlias = SpaceIndex | LiveSpace
"""A space whose items have changed since, or one where none has."""
