"""What a search costs on this machine, measured in a few milliseconds when a space is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from annserve.domain.arrays import Rows, Vectors
from annserve.search.exact import exact_top_k
from annserve.search.graph import Graph
from annserve.search.points import Points

_SCANNED_ROWS = 1 << 15
_GATHERED_ROWS = 1 << 11
_REPEATS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Microseconds of one query on one core, linear in the length of the search list or the number of rows."""

    graph_us: float = 5.0
    graph_us_per_candidate: float = 0.5
    exact_us: float = 10.0
    scan_us_per_row: float = 0.01
    gather_us_per_row: float = 0.03
    """What a scan of scattered rows costs a row beyond a scan of adjacent ones."""

    def graph(self, ef_search: int) -> float:
        """Return the cost of following the graph with a search list of ``ef_search``."""
        return self.graph_us + self.graph_us_per_candidate * ef_search

    def scan(self, rows: int) -> float:
        """Return the cost of scoring and ranking adjacent ``rows``."""
        return self.exact_us + self.scan_us_per_row * rows

    def gather(self, rows: int) -> float:
        """Return the cost of scoring and ranking ``rows`` that lie anywhere."""
        return self.scan(rows) + self.gather_us_per_row * rows

    @classmethod
    def measure(cls, points: Points, graph: Graph | None) -> CostModel:
        """Time a few searches of ``points``, which must not be empty, and of ``graph``."""
        probes = points.matrix(np.linspace(0, len(points) - 1, _REPEATS).astype(np.int64))
        few, many = points.gather(_spread(points, 1)), points.gather(np.arange(min(len(points), _SCANNED_ROWS)))
        scattered = _spread(points, _GATHERED_ROWS)
        exact_us = _median_us(lambda i: exact_top_k(few, probes[i], 10))
        scan_us = (_median_us(lambda i: exact_top_k(many, probes[i], 10)) - exact_us) / len(many)
        gather_us = _median_us(lambda i: points.scores(probes[i], scattered)) / len(scattered)
        graph_us, candidate_us = (0.0, 0.0) if graph is None else _graph_us(graph, probes)
        return cls(
            graph_us=graph_us,
            graph_us_per_candidate=candidate_us,
            exact_us=exact_us,
            scan_us_per_row=max(scan_us, 1e-4),
            gather_us_per_row=max(gather_us - scan_us, 0.0),
        )


def _spread(points: Points, count: int) -> Rows:
    rows = np.random.default_rng(0).integers(0, len(points), min(count, len(points)))
    rows.sort()
    return rows


def _graph_us(graph: Graph, probes: Vectors) -> tuple[float, float]:
    """Return the fixed cost and that of each entry of the search list, from two lengths of it."""
    short = min(graph.recipe.ef_search, graph.count)
    long = min(4 * short, graph.count)
    k = min(10, short)
    short_us = _median_us(lambda i: graph.search(probes[i], k))
    if long == short:
        return short_us, 0.0
    long_us = _median_us(lambda i: graph.search(probes[i], k, long))
    per_candidate = max(long_us - short_us, 0.0) / (long - short)
    return max(short_us - per_candidate * short, 0.0), per_candidate


def _median_us(task: Callable[[int], object]) -> float:
    """Return the median CPU time of ``task(0)``, ``task(1)``, …, all of them run once before to warm up."""
    for _ in range(2):
        times = [time.thread_time()]
        for i in range(_REPEATS):
            task(i)
            times.append(time.thread_time())
    return float(np.median(np.diff(times))) * 1e6
