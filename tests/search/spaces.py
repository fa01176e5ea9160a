"""Spaces made up for tests: clustered vectors of uneven length, as factors are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.domain.model import Space
from annserve.search.bands import Bands, measure_bands
from annserve.search.cost import CostModel
from annserve.search.graph import Graph
from annserve.search.index import SpaceIndex
from annserve.search.points import Points
from annserve.search.recipe import Recipe, Reduction

GRAPH_IS_CHEAP = CostModel(
    graph_us=1.0, graph_us_per_candidate=0.01, graph_us_per_result=0.01, exact_us=10.0, scan_us_per_row=1.0
)
GRAPH_IS_DEAR = CostModel(graph_us=1e9)
RECIPE = Recipe(reduction=Reduction.INNER_PRODUCT, m=16, ef_construction=100, ef_search=100)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Built:
    """A space, its graph, what was measured of it, and queries."""

    points: Points
    graph: Graph
    bands: Bands
    queries: Vectors

    def index(self, cost: CostModel = GRAPH_IS_CHEAP, *, recall_target: float = 0.95) -> SpaceIndex:
        """Return the space ready to search; the graph is the cheaper way unless told otherwise."""
        return SpaceIndex(self.points, self.graph, bands=self.bands, cost=cost, recall_target=recall_target)


def make_vectors(count: int, dimension: int, *, seed: int = 0, spread: float = 0.3) -> Vectors:
    """Return clustered vectors whose lengths are log-normal with ``spread``."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(20, dimension))
    vectors = centres[random.integers(0, 20, count)] + 0.7 * random.normal(size=(count, dimension))
    return np.asarray(vectors * np.exp(spread * random.normal(size=(count, 1))), np.float32)


def make_points(space: Space, count: int, dimension: int, *, seed: int = 0, spread: float = 0.3) -> Points:
    vectors = make_vectors(count, dimension, seed=seed, spread=spread)
    if space is Space.LIKENESS:
        return Points.likeness(vectors, 0.75)
    popularity = np.log1p(np.random.default_rng(seed).integers(0, 100, count)).astype(np.float32)
    return Points.affinity(vectors, popularity)


def make_queries(points: Points, count: int, *, seed: int = 1) -> Vectors:
    """Return queries like the points: unit vectors for likeness, a vector and a weight of the prior for affinity."""
    vectors = make_vectors(count, points.vectors.shape[1], seed=seed)
    if points.bias is None:
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
    return np.column_stack([vectors, np.full(count, 0.3, np.float32)])


def build_space(space: Space, *, count: int, dimension: int) -> Built:
    points = make_points(space, count, dimension)
    graph = Graph.build(points, RECIPE)
    queries = make_queries(points, 200)
    return Built(points=points, graph=graph, bands=measure_bands(points, graph, queries[:100]), queries=queries[100:])


def ranked(points: Points, query: Vectors, allowed: Rows | None = None) -> tuple[Rows, Scores]:
    """Return the allowed rows, best first, and their scores, by the plainest means there are."""
    rows = np.arange(len(points)) if allowed is None else np.unique(allowed)
    scores = points.matrix(rows).astype(np.float64) @ query.astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    return rows[order], scores[order].astype(np.float32)
