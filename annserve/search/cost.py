"""What a search costs on this machine, measured in a few hundredths of a second when a space is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from annserve.domain.arrays import Rows, Vectors
from annserve.search.candidates import kept, ranked
from annserve.search.exact import top_k
from annserve.search.graph import Graph
from annserve.search.points import Points

_NEAR_ROWS = 1 << 15
_FAR_ROWS = 1 << 17
_GATHERED_ROWS = 1 << 11
_REPEATS = 8
_FAR_REPEATS = 3
_UNWANTED = frozenset({-1})


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Microseconds of one query on one core, linear in the length of the search list and the number of rows.

    The line of a scan has one bend: what is beyond the processor's caches is read three times as slowly.
    """

    graph_us: float = 5.0
    graph_us_per_candidate: float = 0.5
    graph_us_per_result: float = 0.1
    """What it costs to score, rank and sift a row that the graph returned."""
    exact_us: float = 10.0
    scan_us_per_row: float = 0.01
    far_us_per_row: float = 0.0
    """What a scan costs more for each row after the first 32,768."""
    gather_us_per_row: float = 0.03
    """What a scan of scattered rows costs a row beyond a scan of adjacent ones."""

    def graph(self, ef_search: int, depth: int) -> float:
        """Return the cost of the best ``depth`` rows by the graph with a search list of at least ``ef_search``."""
        return self.graph_us + self.graph_us_per_candidate * max(ef_search, depth) + self.graph_us_per_result * depth

    def scan(self, rows: int) -> float:
        """Return the cost of scoring and ranking adjacent ``rows``."""
        return self.exact_us + self.scan_us_per_row * rows + self.far_us_per_row * max(rows - _NEAR_ROWS, 0)

    def gather(self, rows: int) -> float:
        """Return the cost of scoring and ranking ``rows`` that lie anywhere."""
        return self.scan(rows) + self.gather_us_per_row * rows

    @classmethod
    def measure(cls, points: Points, graph: Graph | None) -> CostModel:
        """Time a few searches of ``points``, which must not be empty, and of ``graph``."""
        probes = points.matrix(np.linspace(0, len(points) - 1, 2 * _REPEATS).astype(np.int64))
        near_rows, far_rows = min(len(points), _NEAR_ROWS), min(len(points), _FAR_ROWS)
        scattered = _spread(points, _GATHERED_ROWS)
        exact_us = _median_us(lambda i: _scan(points, probes[i], 1))
        near_us = _median_us(lambda i: _scan(points, probes[i], near_rows))
        scan_us = (near_us - exact_us) / near_rows
        beyond_us = scan_us
        if far_rows > near_rows:
            far_us = _median_us(lambda i: _scan(points, probes[i], far_rows), _FAR_REPEATS)
            beyond_us = (far_us - near_us) / (far_rows - near_rows)
        gather_us = _median_us(lambda i: points.scores(probes[i], scattered)) / len(scattered)
        graph_us, candidate_us, result_us = (0.0, 0.0, 0.0) if graph is None else _graph_us(points, graph, probes)
        return cls(
            graph_us=graph_us,
            graph_us_per_candidate=candidate_us,
            graph_us_per_result=result_us,
            exact_us=exact_us,
            scan_us_per_row=max(scan_us, 1e-4),
            far_us_per_row=max(beyond_us - scan_us, 0.0),
            gather_us_per_row=max(gather_us - scan_us, 0.0),
        )


def _scan(points: Points, query: Vectors, rows: int) -> None:
    top_k(points.scores(query, slice(rows)), 10)


def _spread(points: Points, count: int) -> Rows:
    rows = np.random.default_rng(0).integers(0, len(points), min(count, len(points)))
    rows.sort()
    return rows


def _graph_us(points: Points, graph: Graph, probes: Vectors) -> tuple[float, float, float]:
    """Return the fixed cost, that of each entry of the search list and of each row, from two lengths and depths."""
    short = min(graph.recipe.ef_search, graph.count)
    long = min(4 * short, graph.count)
    shallow = min(10, short)
    short_us = _median_us(lambda i: _attempt(points, graph, probes[i], shallow, short))
    if long == short:
        return short_us, 0.0, 0.0
    long_us = _median_us(lambda i: _attempt(points, graph, probes[i], shallow, long))
    deep_us = _median_us(lambda i: _attempt(points, graph, probes[i], long, long))
    per_candidate = max(long_us - short_us, 0.0) / (long - short)
    per_result = max(deep_us - long_us, 0.0) / (long - shallow)
    return max(short_us - per_candidate * short - per_result * shallow, 0.0), per_candidate, per_result


def _attempt(points: Points, graph: Graph, query: Vectors, depth: int, ef_search: int) -> None:
    """Do what a search with excluded rows does with the graph's answer."""
    found = graph.search_scored(query, depth, ef_search)
    if found is not None:
        rows, scores = found
        if scores is None:
            rows, _ = ranked(points, query[None, :], rows)
        kept(rows[0], depth, None, _UNWANTED)


def _median_us(task: Callable[[int], object], repeats: int = _REPEATS) -> float:
    """Return the median CPU time of the second half of ``task(0)``, ``task(1)``, …; the first half warms up.

    A query that has just been answered is answered faster, its rows still in the cache: each is timed once.
    """
    times = []
    for i in range(2 * repeats):
        start = time.thread_time()
        task(i)
        times.append(time.thread_time() - start)
    return float(np.median(times[repeats:])) * 1e6
