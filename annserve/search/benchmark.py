"""The search benchmark: recall, speed and path at every selectivity, beside hnswlib called directly.

All speeds are of one core: queries per second of CPU time, which a busy neighbour does not change.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.domain.model import Space
from annserve.domain.progress import Progress, no_progress
from annserve.domain.query import SearchPath
from annserve.search.bands import TUNED_DEPTH
from annserve.search.exact import exact_top_k, exact_top_k_batch
from annserve.search.graph import Graph
from annserve.search.index import SearchResult, SpaceIndex
from annserve.search.points import Points
from annserve.search.recall import recall_of, without_own
from annserve.search.recipe import Recipe, Reduction
from annserve.search.restriction import Restriction
from annserve.search.tune import tune

_SELECTIVITIES = (0.5, 0.1, 0.01, 0.001)
_CLUSTER_SHARE = 0.05
_HISTORY_SIZE = 20
_FILTERED_QUERIES = 200
_REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterFigures:
    """How searches under one filter went."""

    filter: str
    selectivity: float
    """The share of points that may be returned."""
    recall: float
    """Mean recall@10 against exact search."""
    queries_per_second: float
    hnsw_share: float
    """The share of queries the graph answered; exact search answered the rest."""
    complete: bool
    """Whether every answer had as many rows as there could be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectFigures:
    """annserve beside hnswlib called directly: the same graph, list and queries, no filter."""

    calls: str
    """``one by one`` or ``batch``."""
    recall: float
    direct_recall: float
    queries_per_second: float
    direct_queries_per_second: float
    slower_percent: float
    """How much longer annserve takes; negative when it is faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBenchmark:
    """Everything one run measured."""

    point_count: int
    dimension: int
    query_count: int
    recipe: Recipe | None
    """None where no graph serves."""
    direct: tuple[DirectFigures, ...]
    filters: tuple[FilterFigures, ...]

    def as_plain(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def benchmark_vectors(
    vectors: Vectors,
    queries: Vectors,
    space: Space,
    *,
    tuning_queries: Vectors | None = None,
    popularity: Scores | None = None,
    exponent: float = 1.0,
    target: float = 0.98,
    threads: int = 1,
    seed: int = 0,
    progress: Progress = no_progress,
) -> SearchBenchmark:
    """Tune a graph with some queries and measure it with others.

    Args:
        vectors: ``(n, d)``, no zero rows.
        queries: ``(q, d)`` for likeness, ``(q, d + 1)`` for affinity, the last entry the weight of the prior.
        space: How points and queries compare. For likeness, queries are brought to length 1.
        tuning_queries: Like ``queries``; when not given, every other one of those tunes and only the rest measure.
            None may be a point if ``queries`` are not: a graph finds the neighbours of its own points more easily.
        popularity: ``(n,)``, the prior of affinity; 0 when not given.
        exponent: Of the norm that divides likeness; 1 makes it the cosine.
        target: The recall to tune for.
        threads: How many build the graph; searching is always timed on one.
        seed: Of the graph and the filters.
        progress: Told of the build.
    """
    if tuning_queries is None:
        tuning_queries, queries = queries[0::2], queries[1::2]
    if space is Space.LIKENESS:
        points = Points.likeness(vectors, exponent)
        tuning_queries, queries = _of_unit_length(tuning_queries), _of_unit_length(queries)
    else:
        points = Points.affinity(vectors, np.zeros(len(vectors), np.float32) if popularity is None else popularity)
    tuned = tune(points, tuning_queries, target=target, threads=threads, seed=seed, progress=progress)
    index = SpaceIndex(points, tuned.graph, bands=tuned.bands, recall_target=target)
    return benchmark_index(index, queries, seed=seed, progress=progress)


def _of_unit_length(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def benchmark_index(
    index: SpaceIndex,
    queries: Vectors,
    own_rows: Rows | None = None,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> SearchBenchmark:
    """Measure a space that is ready to serve.

    Args:
        index: The space.
        queries: ``(q, dimension)``, at best 1,000 that took no part in tuning.
        own_rows: ``(q,)``: for likeness, the row of each seed, which does not count as found; -1 for none. One row
            more is asked for instead.
        seed: Of the random filters.
        progress: Told of every filter.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    asked = _Asked(queries=queries, own_rows=own_rows)
    # Spread out: files of queries are often sorted, the easy ones first.
    few = asked.part(slice(None, None, max(len(queries) // _FILTERED_QUERIES, 1)))
    filters = [_open_figures(index, few)]
    for step, (name, rows) in enumerate(_filters(index.points, few.queries, np.random.default_rng(seed))):
        progress(f"filter: {name}", step, None)
        filters.append(_filter_figures(index, few, name, rows))
    filters.append(_history_figures(index, few))
    return SearchBenchmark(
        point_count=index.count,
        dimension=index.dimension,
        query_count=len(queries),
        recipe=None if index.graph is None else index.graph.recipe,
        direct=() if index.graph is None else _direct_figures(index, index.graph, asked),
        filters=tuple(filters),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Asked:
    """Queries, and a row that does not count for each."""

    queries: Vectors
    own_rows: Rows | None

    @property
    def k(self) -> int:
        """How many rows to ask for, so that ten remain without the own one."""
        return TUNED_DEPTH + (self.own_rows is not None)

    def part(self, part: slice) -> _Asked:
        return _Asked(queries=self.queries[part], own_rows=None if self.own_rows is None else self.own_rows[part])

    def counted(self, rows: Rows) -> Rows:
        """Return the rows that count of those found, ``(q, k)``."""
        return without_own(rows, self.own_rows, TUNED_DEPTH)


def _filters(points: Points, queries: Vectors, random: np.random.Generator) -> Iterator[tuple[str, Rows]]:
    """Yield filters by name: random ones of every selectivity, then those made to hurt."""
    count = len(points)
    for selectivity in _SELECTIVITIES:
        size = max(round(count * selectivity), 1)
        yield f"random {selectivity:.1%}", random.choice(count, size, replace=False)
    by_norm = np.argsort(np.einsum("ij,ij->i", points.vectors, points.vectors))
    yield "lowest-norm half", by_norm[: max(count // 2, 1)]
    yield "highest-norm half", by_norm[count // 2 :]
    size = max(round(count * _CLUSTER_SHARE), 1)
    yield "one cluster", exact_top_k(points, queries[0], size)[0]
    yield "far cluster", exact_top_k(points, -queries[0], size)[0]


def _open_figures(index: SpaceIndex, asked: _Asked) -> FilterFigures:
    exact = asked.counted(exact_top_k_batch(index.points, asked.queries, asked.k)[0])
    results, rate = _timed(lambda: [index.search(query, asked.k) for query in asked.queries], len(asked.queries))
    return _figures("none", 1.0, index.points, asked, exact, results, rate)


def _filter_figures(index: SpaceIndex, asked: _Asked, name: str, rows: Rows) -> FilterFigures:
    restriction = Restriction(rows, index.count)
    places, _ = exact_top_k_batch(index.points.gather(restriction.rows), asked.queries, asked.k)
    exact = asked.counted(restriction.rows[places])
    results, rate = _timed(
        lambda: [index.search(query, asked.k, restriction=restriction) for query in asked.queries],
        len(asked.queries),
    )
    return _figures(name, len(restriction) / index.count, index.points, asked, exact, results, rate)


def _history_figures(index: SpaceIndex, asked: _Asked) -> FilterFigures:
    """Exclude each query's own best rows, as the history of a user does."""
    ranked, _ = exact_top_k_batch(index.points, asked.queries, _HISTORY_SIZE + asked.k)
    histories = ranked[:, :_HISTORY_SIZE]
    exact = asked.counted(ranked[:, _HISTORY_SIZE:])
    results, rate = _timed(
        lambda: [
            index.search(query, asked.k, excluded=history)
            for query, history in zip(asked.queries, histories, strict=True)
        ],
        len(asked.queries),
    )
    share = 1 - histories.shape[1] / index.count
    return _figures(f"best {_HISTORY_SIZE} excluded", share, index.points, asked, exact, results, rate)


def _figures(
    name: str,
    selectivity: float,
    points: Points,
    asked: _Asked,
    exact: Rows,
    results: list[SearchResult],
    queries_per_second: float,
) -> FilterFigures:
    complete = all(len(result.rows) == min(asked.k, result.eligible_count) for result in results)
    found = asked.counted(np.array([result.rows for result in results])) if complete else exact[:, :0]
    return FilterFigures(
        filter=name,
        selectivity=selectivity,
        recall=recall_of(points, asked.queries, exact, found),
        queries_per_second=queries_per_second,
        hnsw_share=sum(result.path is SearchPath.HNSW for result in results) / len(results),
        complete=complete,
    )


def _direct_figures(index: SpaceIndex, graph: Graph, asked: _Asked) -> tuple[DirectFigures, ...]:
    queries, k = asked.queries, min(asked.k, index.count)
    exact = asked.counted(exact_top_k_batch(index.points, queries, k)[0])
    native, native_queries = _native(graph, queries)

    def recall(found: Any) -> float:
        rows = np.asarray(found, np.int64).reshape(len(queries), k)
        return recall_of(index.points, queries, exact, asked.counted(rows))

    def compared(calls: str, ours: Callable[[], Any], direct: Callable[[], Any]) -> DirectFigures:
        # One after the other, several times over, so that neither has the quieter machine.
        timed = [(_timed(ours, len(queries), 1), _timed(direct, len(queries), 1)) for _ in range(_REPEATS)]
        rate, direct_rate = max(pair[0][1] for pair in timed), max(pair[1][1] for pair in timed)
        return DirectFigures(
            calls=calls,
            recall=recall(ours()),
            direct_recall=recall(direct()),
            queries_per_second=rate,
            direct_queries_per_second=direct_rate,
            slower_percent=(direct_rate / rate - 1) * 100,
        )

    return (
        compared(
            "one by one",
            lambda: [index.search(query, k).rows for query in queries],
            lambda: [native.knn_query(query, k)[0] for query in native_queries],
        ),
        compared(
            f"batch of {len(queries)}",
            lambda: index.search_batch(queries, k)[0],
            lambda: native.knn_query(native_queries, k)[0],
        ),
    )


def _native(graph: Graph, queries: Vectors) -> tuple[Any, Vectors]:
    """Return the same graph as a bare hnswlib index, and the queries as it wants them."""
    augmented = graph.recipe.reduction is Reduction.AUGMENTED_L2
    native = hnswlib.Index("l2" if augmented else "ip", graph.dimension + augmented)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.hnsw")
        graph.save(path)
        native.load_index(str(path))
    native.set_ef(graph.recipe.ef_search)
    native.set_num_threads(1)
    if augmented:
        queries = np.column_stack([queries, np.zeros(len(queries), np.float32)])
    return native, queries


def _timed(task: Callable[[], Any], query_count: int, repeats: int = 2) -> tuple[Any, float]:
    """Return what ``task`` returns and the best queries per second of CPU time over ``repeats`` runs."""
    best = np.inf
    for _ in range(repeats):
        start = time.thread_time()
        result = task()
        best = min(best, time.thread_time() - start)
    return result, query_count / best
