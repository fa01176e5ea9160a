"""HNSW graphs by hnswlib, with everything it does not check checked before native code is entered.

hnswlib 0.8.0 verifies neither the dimension nor finiteness nor whether an index is initialised (garbage, or SIGSEGV),
a damaged file kills the process, saving to a full disk raises nothing, and a search that finds fewer than were asked
for raises and leaks its buffers. Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
Hierarchical Navigable Small World graphs", TPAMI 2018.
"""

from __future__ import annotations

import logging
import math
import struct
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from annserve.domain.arrays import Rows, Scores, Vectors, checked_queries
from annserve.domain.errors import BuildError, InvalidArgumentError, SnapshotSchemaError
from annserve.domain.progress import Progress, no_progress
from annserve.search.points import Points
from annserve.search.recipe import Recipe, Reduction

_LOG = logging.getLogger(__name__)
_SHORTFALLS_MAX = 16
"""After so many calls that reached fewer rows than they asked for, calls about as wide are not made any more.

One such query says little of others, which enter the graph elsewhere; many say that the graph is in pieces. hnswlib
leaks the buffers of each such call, 12 bytes a row, so the bound is on memory: widths are counted by powers of two,
and all single queries up to 10,000 rows wide together can leak 16 x 12 x 20,000 bytes, under 4 MB, and a batch of
q queries q times that.
"""
_BLOCK_ROWS = 8192
_ROWS_COMPARED = 16
_NORM_MAX = float(np.sqrt(np.finfo(np.float32).max))
# The head of hnswlib's file: offset of level 0, capacity, count, bytes per element, offsets of label and vector.
_HEAD = struct.Struct("<6Q")


class Graph:
    """A finished, read-only graph. Any number of threads may search it, and it may be inherited through a fork.

    The search list is never changed after construction: it is state that all threads would share. A longer one
    for a single call is had by asking for more rows, since hnswlib uses the longer of the two.
    """

    def __init__(self, index: Any, recipe: Recipe, dimension: int, magnification: float | None = None) -> None:
        """Wrap a filled hnswlib index; use `build` or `load`. ``dimension`` is that of a query."""
        index.set_num_threads(1)
        index.set_ef(recipe.ef_search)
        self.recipe = recipe
        self.dimension = dimension
        self.count: int = index.get_current_count()
        self._index = index
        self._augmented = recipe.reduction is Reduction.AUGMENTED_L2
        self._magnification = magnification
        self.shortfalls = 0
        """How many calls reached fewer rows than they asked for; exact search answers those."""
        self._shortfalls_by_bits: dict[int, int] = {}
        self._findable = self.count

    @classmethod
    def build(
        cls, points: Points, recipe: Recipe, *, threads: int = 1, seed: int = 0, progress: Progress = no_progress
    ) -> Graph:
        """Build the graph of ``points``; the same seed gives the same graph when ``threads`` is 1.

        Rows are inserted in random order, because ids, and so rows, often come sorted by what they are.

        Raises:
            InvalidArgumentError: there are no points, or one is not finite.
        """
        count = len(points)
        if count == 0:
            raise InvalidArgumentError.of("points", "must not be empty")
        norms = points.norms()
        magnification = _magnification(norms)
        # Not "any above", which NaN would pass.
        if not (norms * max(magnification, 1.0) < _NORM_MAX).all():
            raise InvalidArgumentError.of("points", "must be finite, with norms whose squares float32 can hold")
        index = _empty_index(recipe.reduction, points.dimension)
        index.init_index(count, recipe.m, recipe.ef_construction, seed)
        longest = float(norms.max(initial=0.0)) * magnification
        order = np.random.default_rng(seed).permutation(count)
        for start in range(0, count, _BLOCK_ROWS):
            progress("build graph", start, count)
            rows = order[start : start + _BLOCK_ROWS]
            vectors = points.matrix(rows) * magnification
            if recipe.reduction is Reduction.AUGMENTED_L2:
                vectors = _augmented(vectors, longest)
            index.add_items(vectors, rows, num_threads=threads)
        progress("build graph", count, count)
        return cls(index, recipe, points.dimension, magnification)

    @classmethod
    def load(cls, path: Path, recipe: Recipe, *, count: int, dimension: int) -> Graph:
        """Load a graph whose checksum has been verified: hnswlib may crash on, or misread, any other file.

        Raises:
            SnapshotSchemaError: the file is not a graph of ``count`` points of ``dimension`` with ``recipe.m``.
        """
        index = _empty_index(recipe.reduction, dimension)
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise SnapshotSchemaError(path, f"too short for a graph: {len(head)} bytes")
        _, capacity, stored, element_bytes, label_offset, vector_offset = _HEAD.unpack(head)
        expected = (count, count, 4 * index.dim, 8)
        found = (capacity, stored, label_offset - vector_offset, element_bytes - label_offset)
        if found != expected:
            raise SnapshotSchemaError(path, f"capacity, count, vector bytes, label bytes: {found}, expected {expected}")
        index.load_index(str(path))
        if recipe.m != index.M:
            raise SnapshotSchemaError(path, f"m: {index.M}, expected {recipe.m}")
        return cls(index, recipe, dimension)

    def with_ef_search(self, ef_search: int) -> Graph:
        """Return this graph with another search list. The two share an index: search only the new one from here."""
        return Graph(self._index, replace(self.recipe, ef_search=ef_search), self.dimension, self._magnification)

    def save(self, path: Path) -> None:
        """Write the graph, then read it back and compare: hnswlib says nothing when the disk is full.

        Raises:
            BuildError: what is on the disk is not this graph.
        """
        self._index.save_index(str(path))
        size_bytes, expected_bytes = path.stat().st_size, self._index.index_file_size()
        if size_bytes != expected_bytes:
            raise BuildError(f"graph {path}: {size_bytes} of {expected_bytes} bytes were written; is the disk full?")
        stored = Graph.load(path, self.recipe, count=self.count, dimension=self.dimension)
        probes = np.random.default_rng(0).standard_normal((10, self.dimension)).astype(np.float32)
        k = min(10, self.count)
        here, there = self.search(probes, k), stored.search(probes, k)
        if here is not None and (there is None or not np.array_equal(here, there)):
            raise BuildError(f"graph {path}: reads back with other answers; is the disk sound?")

    def recognise(self, points: Points) -> bool:
        """Return whether this is the graph of ``points``, by a few of them, and learn to give their scores."""
        if (self.count, self.dimension) != (len(points), points.dimension):
            return False
        rows = np.random.default_rng(0).integers(0, self.count, _ROWS_COMPARED)
        stored = np.asarray(self._index.get_items(rows), np.float32)[:, : self.dimension]
        expected = points.matrix(rows)
        stored_norm, norm = (float(np.linalg.norm(vectors.astype(np.float64))) for vectors in (stored, expected))
        if min(stored_norm, norm) > 0:
            self._magnification = 2.0 ** round(math.log2(stored_norm / norm))
            expected *= self._magnification
        return np.allclose(stored, expected, rtol=1e-5, atol=1e-5 * float(np.abs(stored).max()))

    def search(self, queries: Vectors, k: int, ef_search: int | None = None, *, threads: int = 1) -> Rows | None:
        """Return the ``k`` rows nearest to each query, best first by the graph's own rounded distances.

        Args:
            queries: ``(dimension,)`` or ``(q, dimension)``; checked here.
            k: 1 to `count`.
            ef_search: A search list longer than the recipe's; a shorter one changes nothing.
            threads: How many may work on a batch.

        Returns:
            ``(k,)`` or ``(q, k)``; None when the graph cannot reach ``k`` rows from one of the queries.

        Raises:
            InvalidArgumentError: ``queries`` or ``k`` is outside what is stated above.
        """
        queries = checked_queries(queries, self.dimension)
        if not 1 <= k <= self.count:
            raise InvalidArgumentError.of("k", f"must be 1 to {self.count}, got {k}")
        found = self._nearest(queries, k, ef_search or 0, threads)
        if found is None:
            return None
        return found[0][0] if queries.ndim == 1 else found[0]

    def search_scored(self, queries: Vectors, k: int, ef_search: int = 0) -> tuple[Rows, Scores | None] | None:
        """Do what `search` does, for a caller that has checked ``queries`` and ``k``; always returns ``(q, k)``.

        The scores, exact but for rounding, come for nothing with the inner product, and ties are in order of row.
        Where only the points can give them they are None, or NaN for those queries of several that it is so for.
        """
        found = self._nearest(queries, k, ef_search, 1)
        if found is None:
            return None
        rows, distances = found
        if not self._magnification or self._augmented:
            return rows, None
        scores = 1.0 - distances
        # hnswlib rounds at 1e-7 of 1, so a query whose best is below 1 would lose digits.
        if len(scores) == 1:
            if -1.0 < scores.item(0) < 1.0:
                return rows, None
        elif any(-1.0 < best < 1.0 for best in scores[:, 0].tolist()):
            scores[np.abs(scores[:, 0]) < 1.0] = np.nan
        scores *= 1.0 / self._magnification
        return rows, scores

    def _nearest(self, queries: Vectors, k: int, ef_search: int, threads: int) -> tuple[Rows, Scores] | None:
        """Return rows and hnswlib's distances, ``(q, k)``."""
        width = k if ef_search <= self.recipe.ef_search else min(max(k, ef_search), self.count)
        if width > self._findable:
            return None
        if self._augmented:
            queries = np.concatenate([queries, np.zeros((*queries.shape[:-1], 1), np.float32)], axis=-1)
        try:
            labels, distances = self._index.knn_query(queries, width, threads)
        except RuntimeError:
            self._note_shortfall(width)
            return None
        if width > k:
            labels, distances = labels[:, :k], distances[:, :k]
        return labels.view(np.int64), distances

    def _note_shortfall(self, width: int) -> None:
        """Count a call that leaked, and give up on all about as wide, or wider, when there are too many of them."""
        _warn_of_shortfalls()
        # Two threads may count as one: a few more calls, no other answers.
        bits = width.bit_length()
        self.shortfalls += 1
        self._shortfalls_by_bits[bits] = self._shortfalls_by_bits.get(bits, 0) + 1
        if self._shortfalls_by_bits[bits] >= _SHORTFALLS_MAX:
            self._findable = min(self._findable, 2 ** (bits - 1) - 1)


@cache
def _warn_of_shortfalls() -> None:
    """Say once in the life of a process, not at every query, that this happens."""
    _LOG.warning("a graph reached fewer rows than a query asked for; exact search answers such queries, more slowly")


def _empty_index(reduction: Reduction, dimension: int) -> Any:
    if reduction is Reduction.AUGMENTED_L2:
        return hnswlib.Index("l2", dimension + 1)
    return hnswlib.Index("ip", dimension)


def _magnification(norms: Vectors) -> float:
    """Return a power of two that brings the typical norm near 32.

    hnswlib orders by ``1 - inner product``, and beside that 1 the products of short vectors drown in rounding.
    """
    typical = float(np.median(norms))
    return 2.0 ** (5 - round(math.log2(typical))) if 0 < typical < math.inf else 1.0


def _augmented(vectors: Vectors, longest: float) -> Vectors:
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    return np.column_stack([vectors, np.sqrt(np.maximum(longest**2 - squares, 0))]).astype(np.float32)
