"""Recall by norm band and depth: what a graph can be trusted with when a filter follows it.

A graph over inner products reaches long vectors well and short ones badly, and over-fetching until enough survive
a filter proves nothing: a filter that kept the shorter half was filled for 98.6 % of queries at recall 0.28. So the
build measures, at several depths and search lists, which bands of norm the exact results lie in, and how many of
those the graph finds. From the share of each band that a filter keeps follows what to expect under that filter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.search.exact import exact_top_k_batch
from annserve.search.graph import Graph
from annserve.search.points import Points
from annserve.search.recall import found_of, without_own

BAND_COUNT = 8
TUNED_DEPTH = 10
"""The k of recall@k that a recipe is tuned to."""

_DEPTHS = tuple(sorted(depth * 2**step for step in range(9) for depth in (TUNED_DEPTH, TUNED_DEPTH * 3 // 2)))
_LIST_GROWTH = 1.5
_LIST_SHARE_MAX = 50
"""A search list longer than one in so many points costs more than a scan of all of them."""
_QUERIES_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What was measured when the exact top ``depth`` was looked for with a search list of ``ef_search``."""

    depth: int
    ef_search: int
    hit_shares: tuple[float, ...]
    """For each band, the share of the exact results that lies in it; they sum to 1."""
    recalls: tuple[float, ...]
    """For each band, the share of its exact results that was found; 0 for a band without any."""

    @property
    def recall(self) -> float:
        """The recall over all bands."""
        return sum(share * recall for share, recall in zip(self.hit_shares, self.recalls, strict=True))

    @property
    def reach(self) -> int:
        """How many ranks deep this measurement is relied on: recall falls slowly enough to go a fifth deeper."""
        return self.depth + self.depth // 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """The norm bands of a space and what was measured in each. Every field is made of JSON values."""

    edges: tuple[float, ...]
    """Ascending norms that separate one band from the next, one fewer than there are bands."""
    levels: tuple[Level, ...]

    def of(self, norms: Scores) -> npt.NDArray[np.uint8]:
        """Return the band of each norm."""
        return np.searchsorted(np.asarray(self.edges, np.float32), norms, side="right").astype(np.uint8)


def measure_bands(
    points: Points, graph: Graph, queries: Vectors, *, own_rows: Rows | None = None, threads: int = 1
) -> Bands:
    """Measure ``graph`` against exact search.

    Args:
        points: What the graph was built on.
        graph: The graph.
        queries: ``(q, dimension)``; at most the first 256 are used.
        own_rows: ``(q,)``: a row that does not count for each query (the seed itself), -1 for none.
        threads: How many may search the graph.
    """
    queries = queries[:_QUERIES_MAX]
    own = None if own_rows is None else own_rows[:_QUERIES_MAX]
    norms = points.norms()
    edges = band_edges(norms)
    count = len(points)
    lists = _lists(graph.recipe.ef_search, count)
    depths = [depth for depth in _DEPTHS if depth < lists[-1]] or [min(TUNED_DEPTH, count)]
    exact = without_own(exact_top_k_batch(points, queries, depths[-1] + 1)[0], own, depths[-1])
    hit_bands = Bands(edges=edges, levels=()).of(norms)[exact]
    levels: list[Level] = []
    for ef_search in lists:
        found = graph.search(queries, ef_search, threads=threads)
        if found is None:
            break
        hits = found_of(exact, found, count)
        levels += [_level(depth, ef_search, hits, hit_bands, len(edges) + 1) for depth in depths if depth < ef_search]
    return Bands(edges=edges, levels=tuple(levels))


def band_edges(norms: Scores) -> tuple[float, ...]:
    """Return the norms that cut the items into `BAND_COUNT` bands of equal size; none when all norms are alike."""
    edges = np.unique(np.quantile(norms, np.arange(1, BAND_COUNT) / BAND_COUNT).astype(np.float32))
    # Unit vectors differ by rounding only, and bands of rounding errors mean nothing.
    alike = float(norms.max() - norms.min()) <= 1e-3 * float(norms.max())
    return () if alike else tuple(float(edge) for edge in edges)


def _lists(ef_search: int, count: int) -> list[int]:
    lists = [min(ef_search, count)]
    while (longer := math.ceil(lists[-1] * _LIST_GROWTH)) <= count // _LIST_SHARE_MAX:
        lists.append(longer)
    return lists


def _level(
    depth: int, ef_search: int, hits: npt.NDArray[np.bool_], hit_bands: npt.NDArray[np.uint8], band_count: int
) -> Level:
    bands, found = hit_bands[:, :depth].ravel(), hits[:, :depth].ravel()
    totals = np.bincount(bands, minlength=band_count)
    recalls = np.bincount(bands, weights=found, minlength=band_count) / np.maximum(totals, 1)
    return Level(
        depth=depth,
        ef_search=ef_search,
        hit_shares=tuple(round(float(share), 6) for share in totals / max(totals.sum(), 1)),
        recalls=tuple(round(float(recall), 4) for recall in recalls),
    )
