"""One searchable space: complete answers at every selectivity, by graph or exact search, whichever is cheaper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol, TypeAlias

import numpy as np

from annserve.domain.arrays import Rows, Scores, Vectors, checked_queries
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import InvalidArgumentError
from annserve.domain.query import SearchPath
from annserve.search.bands import Bands, Level
from annserve.search.candidates import kept, ranked
from annserve.search.cost import CostModel
from annserve.search.exact import exact_scores, exact_top_k_batch, top_k
from annserve.search.graph import Graph
from annserve.search.planner import Planner
from annserve.search.points import Points
from annserve.search.restriction import Restriction

_Found: TypeAlias = tuple[Rows, Scores]
Others: TypeAlias = tuple[list[int], list[float]]
"""Rows, best first, and their scores."""
_NOBODY: frozenset[int] = frozenset()
_PLANS_KEPT = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchResult:
    """The best rows for one query, best first; ties are in order of row."""

    rows: Rows
    scores: Scores
    path: SearchPath
    eligible_count: int
    """How many rows could have been returned."""


class Observer(Protocol):
    """Is told of some of the searches that a graph has answered."""

    def is_drawn(self) -> bool:
        """Return whether it wants to be told of a search."""
        ...

    def take(self, query: Vectors, restriction: Restriction | None, excluded: Rows | None, found: Rows) -> None:
        """Take a search, as `SpaceIndex.search` was asked for it, and the rows that were found."""
        ...


class LongScanError(Exception):
    """The graph did not answer, and exact search would take longer than the caller can wait here."""


class SpaceIndex:
    """Searches one space. Threads may share it, and children may inherit it through a fork.

    All of it is read-only but who observes it, which is a process's own business.
    """

    observer: Observer | None = None

    def __init__(
        self,
        points: Points,
        graph: Graph | None = None,
        *,
        bands: Bands | None = None,
        cost: CostModel | None = None,
        recall_target: float = 0.98,
    ) -> None:
        """Join ``points`` with their ``graph``; without one, or without ``bands``, more goes to exact search.

        Args:
            points: At least one.
            graph: Built on these points.
            bands: What `measure_bands` said of that graph.
            cost: Measured here, in a few hundredths of a second, when not given.
            recall_target: The share of the exact top k that must be expected of the graph before it is used.

        Raises:
            InvalidArgumentError: ``points`` is empty, or ``graph`` is of other points.
        """
        if len(points) == 0:
            raise InvalidArgumentError.of("points", "must not be empty")
        if graph is not None and not graph.recognise(points):
            raise InvalidArgumentError.of("graph", "must be built on the same points")
        self.points = points
        self.graph = graph
        self.count = len(points)
        self.dimension = points.dimension
        self._planner = Planner(
            norms=points.norms(),
            bands=bands or Bands(edges=(), levels=()),
            cost=cost or CostModel.measure(points, graph),
            ef_search=1 if graph is None else graph.recipe.ef_search,
            recall_target=recall_target,
        )
        # Not a method of its own: the graph would be kept until the collector comes by, after whoever let go of it.
        plan = partial(_plan_of_others, self._planner, 0 if graph is None else self.count)
        self._others = lru_cache(maxsize=_PLANS_KEPT)(plan)

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
        """Return the ``min(k, eligible)`` best rows for ``query``.

        Args:
            query: ``(dimension,)``, finite.
            k: At least 1.
            restriction: The only rows that may be returned; None allows all.
            excluded: Rows that may not be returned, in any order, repeated or not.
            ef_search: A longer search list than the planner would choose. A shorter one changes nothing: the
                promised recall is not for sale. Exact search takes over from a list that costs more than it.
            exact: Whether to pass by the graph.
            fallback_us_max: How long exact search may take, in microseconds, where the graph was asked in vain.
            deadline: Looked at between chunks of a long exact search.

        Raises:
            InvalidArgumentError: an argument is outside what is stated above.
            DeadlineExceededError: the deadline passed during exact search.
            LongScanError: the graph was asked in vain, and exact search is estimated above ``fallback_us_max``.
        """
        query = self._checked_query(query)
        unwanted = _NOBODY if excluded is None else self._checked_excluded(excluded)
        eligible_count = self._eligible_count(restriction, unwanted)
        k = min(_checked_k(k), eligible_count)
        found: _Found | None = None
        if self.graph is not None and not exact and k:
            found = self._by_graph(self.graph, query, k, restriction, unwanted, ef_search or 0, fallback_us_max)
        observer = self.observer
        if found is not None and observer is not None and observer.is_drawn():
            observer.take(query, restriction, excluded, found[0])
        path = SearchPath.HNSW if found else SearchPath.EXACT
        rows, scores = found or self._by_scan(query, k, restriction, excluded, deadline)
        return SearchResult(rows=rows, scores=scores, path=path, eligible_count=eligible_count)

    def search_batch(self, queries: Vectors, k: int, *, ef_search: int | None = None) -> tuple[Rows, Scores]:
        """Return the ``min(k, count)`` best rows for each query, rows and scores of shape ``(q, min(k, count))``.

        Raises:
            InvalidArgumentError: ``queries`` is not ``(q, dimension)`` and finite, or ``k`` is below 1.
        """
        queries = checked_queries(queries, self.dimension, field="queries")
        if queries.ndim != 2:
            raise InvalidArgumentError.of("queries", f"must have shape (q, {self.dimension})")
        k = min(_checked_k(k), self.count)
        levels = self._planner.levels(k, None, 0, ef_search or 0)
        found: tuple[Rows, Scores | None] | None = None
        if self.graph is not None and levels and len(queries):
            found = self.graph.search_scored(queries, k, max(levels[0].ef_search, ef_search or 0))
        if found is None:
            return exact_top_k_batch(self.points, queries, k)
        return self._scored(queries, *found)

    def search_others(self, queries: Vectors, own_rows: Sequence[int], k: int) -> Sequence[Others] | None:
        """Return for each query the ``k`` best rows but its own, exactly as `search` would with that one excluded.

        The graph is asked once for all of them. None where `search` might need more than that.

        Args:
            queries: ``(q, dimension)``, finite.
            own_rows: A row for each of them, which need not be of this space.
            k: At least 1.

        Raises:
            InvalidArgumentError: ``queries`` or ``k`` is outside what is stated above.
        """
        queries = checked_queries(queries, self.dimension, field="queries")
        level, _ = self._others(_checked_k(k))
        if level is None or self.graph is None:
            return None
        found = self.graph.search_scored(queries, min(level.reach, self.count), level.ef_search)
        if found is None:
            return None
        rows, scores = self._scored(queries, *found)
        # Of k + 1 rows the k best that are not its own are left, and no rank is missed but that one.
        others = list(zip(rows[:, : k + 1].tolist(), scores[:, : k + 1].tolist(), strict=True))
        for own_row, (its_rows, its_scores) in zip(own_rows, others, strict=True):
            place = its_rows.index(own_row) if own_row in its_rows else k
            del its_rows[place], its_scores[place]
        observer = self.observer
        if observer is not None:
            for query, own_row, (its_rows, _) in zip(queries, own_rows, others, strict=True):
                if observer.is_drawn():
                    observer.take(query, None, self._own(own_row), np.array(its_rows))
        return others

    def others_us(self, k: int) -> float:
        """Return about what a query costs in `search_others`, on the high side; infinite where that returns None."""
        return self._others(k)[1]

    def score_rows(self, query: Vectors, rows: Rows) -> Scores:
        """Return the exact scores of ``rows`` for ``query``, in the order given.

        Raises:
            InvalidArgumentError: ``query`` is not ``(dimension,)`` and finite, or a row is not of this space.
        """
        query = self._checked_query(query)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.count):
            raise InvalidArgumentError.of("rows", f"must be 0 to {self.count - 1}")
        return self.points.scores(query, rows)

    def estimated_us(
        self,
        k: int,
        *,
        restriction: Restriction | None = None,
        excluded_count: int = 0,
        ef_search: int | None = None,
        exact: bool = False,
    ) -> float:
        """Return about how many microseconds `search` may take with these arguments, on the high side.

        Every attempt on the graph counts that may come before an answer: which rows a filter strikes is known only
        afterwards. Exact search counts where it is likely, not where ``fallback_us_max`` is there to hold it back.
        """
        k = min(k, self.count if restriction is None else len(restriction))
        if self.graph is None or exact or not k:
            return self._planner.exact_us(restriction)
        return self._planner.worst_us(k, restriction, excluded_count, ef_search or 0)

    def scan_us(self, rows: int) -> float:
        """Return about how many microseconds it takes to score and rank ``rows`` that lie side by side."""
        return self._planner.scan_us(rows)

    def _by_graph(
        self,
        graph: Graph,
        query: Vectors,
        k: int,
        restriction: Restriction | None,
        unwanted: frozenset[int],
        ef_search: int,
        fallback_us_max: float,
    ) -> _Found | None:
        """Return ``k`` rows the graph is trusted with, or None when it finds too few or is not worth asking."""
        is_open = restriction is None and not unwanted
        levels = self._planner.levels(k, restriction, len(unwanted), ef_search)
        for level in levels:
            depth = k if is_open else min(level.reach, self.count)
            found = graph.search_scored(query, depth, max(level.ef_search, ef_search))
            if found is None:
                return None
            rows, scores = self._scored(query[None, :], *found)
            if is_open:
                return rows[0], scores[0]
            places = kept(rows[0], k, restriction, unwanted)
            # What was measured is recall down to `reach`, whose mean place is half of that. Rows that all stand
            # further down, behind rows that were refused, are found less often than was measured.
            if len(places) == k and sum(places) <= k * level.reach / 2:
                return rows[0, places], scores[0, places]
        if levels and self._planner.exact_us(restriction) > fallback_us_max:
            raise LongScanError
        return None

    def _scored(self, queries: Vectors, rows: Rows, scores: Scores | None) -> tuple[Rows, Scores]:
        """Return what `Graph.search_scored` found, best first by exact scores where it had none."""
        if scores is None:
            return ranked(self.points, queries, rows)
        if len(rows) > 1 and (unsure := np.isnan(scores[:, 0])).any():
            rows, scores = rows.copy(), scores.copy()
            rows[unsure], scores[unsure] = ranked(self.points, queries[unsure], rows[unsure])
        return rows, scores

    def _by_scan(
        self, query: Vectors, k: int, restriction: Restriction | None, excluded: Rows | None, deadline: Deadline
    ) -> _Found:
        if restriction is None or not self._planner.gathers(restriction):
            scores = exact_scores(self.points, query, deadline=deadline)
            if restriction is not None:
                np.minimum(scores, restriction.ceilings, out=scores)
            if excluded is not None:
                scores[excluded] = -np.inf
            return top_k(scores, k)
        gathered = self._planner.selection(restriction).gather(self.points, restriction.rows)
        if gathered is not None:
            scores = exact_scores(gathered, query, deadline=deadline)
        else:
            scores = exact_scores(self.points, query, restriction.rows, deadline=deadline)
        if excluded is not None:
            scores[restriction.positions(excluded)] = -np.inf
        positions, scores = top_k(scores, k)
        return restriction.rows[positions], scores

    def _own(self, row: int) -> Rows | None:
        """Return what a query about ``row`` excludes, which need not be of this space."""
        return np.array([row]) if row < self.count else None

    def _checked_query(self, query: Vectors) -> Vectors:
        query = checked_queries(query, self.dimension)
        if query.ndim != 1:
            raise InvalidArgumentError.of("query", f"must have shape ({self.dimension},), got {query.shape}")
        return query

    def _checked_excluded(self, excluded: Rows) -> frozenset[int]:
        unwanted = frozenset(excluded.tolist())
        if unwanted and not 0 <= min(unwanted) <= max(unwanted) < self.count:
            raise InvalidArgumentError.of("excluded", f"rows must be 0 to {self.count - 1}")
        return unwanted

    def _eligible_count(self, restriction: Restriction | None, unwanted: frozenset[int]) -> int:
        if restriction is None:
            return self.count - len(unwanted)
        if restriction.count != self.count:
            raise InvalidArgumentError.of("restriction", f"is of {restriction.count} rows, the space of {self.count}")
        if not unwanted:
            return len(restriction)
        return len(restriction) - restriction.count_of(unwanted)


def _plan_of_others(planner: Planner, count: int, k: int) -> tuple[Level | None, float]:
    """Return how a graph of ``count`` rows is asked first for ``k`` beside one that is excluded, and what it costs.

    None, and infinity, where that is not always enough, or there is no graph: its count is 0.
    """
    levels = [] if k >= count else planner.levels(k, None, 1)
    # Then the first k that are left are among k + 1, whose places add up to no more than `_by_graph` allows.
    if not levels or min(levels[0].reach, count) <= k:
        return None, math.inf
    return levels[0], planner.worst_us(k, None, 1, 0)


def _checked_k(k: int) -> int:
    if k < 1:
        raise InvalidArgumentError.of("k", f"must be at least 1, got {k}")
    return k
