from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spaces import RECIPE, Built, make_points, make_queries, ranked

from annserve.domain.arrays import Vectors
from annserve.domain.errors import BuildError, InvalidArgumentError, SnapshotSchemaError
from annserve.domain.model import Space
from annserve.search import graph as graph_module
from annserve.search.exact import exact_top_k_batch
from annserve.search.graph import Graph
from annserve.search.points import Points
from annserve.search.recall import recall_of
from annserve.search.recipe import Recipe, Reduction


def recall(points: Points, graph: Graph, queries: Vectors, ef_search: int) -> float:
    found = graph.search(queries, 10, ef_search)
    assert found is not None
    return recall_of(points, queries, exact_top_k_batch(points, queries, 10)[0], found)


@pytest.mark.parametrize("space", list(Space))
@pytest.mark.parametrize("reduction", list(Reduction))
def test_either_reduction_finds_the_largest_inner_products(space: Space, reduction: Reduction) -> None:
    points = make_points(space, 1000, 12, spread=0.1)
    queries = make_queries(points, 50)
    graph = Graph.build(points, Recipe(reduction=reduction, m=16, ef_construction=100, ef_search=20))

    assert recall(points, graph, queries, 400) >= 0.97


def test_vectors_too_short_to_tell_apart_beside_one_are_found_all_the_same() -> None:
    long = make_points(Space.AFFINITY, 1000, 12)
    short = Points.affinity(long.vectors * np.float32(1e-6), np.asarray(long.bias) * np.float32(1e-6))
    graph = Graph.build(short, RECIPE)

    assert recall(short, graph, make_queries(short, 50), 200) >= 0.97


def test_a_longer_list_for_one_call_finds_more_and_leaves_the_next_call_alone(built: Built) -> None:
    graph = Graph.build(built.points, Recipe(reduction=Reduction.INNER_PRODUCT, m=4, ef_construction=20, ef_search=10))

    before = recall(built.points, graph, built.queries, 10)
    longer = recall(built.points, graph, built.queries, 300)
    assert longer > before + 0.05
    assert recall(built.points, graph, built.queries, 10) == before


def test_scores_that_come_with_the_graph_are_the_exact_ones(built: Built) -> None:
    found = built.graph.search_scored(built.queries, 10)

    assert found is not None
    rows, scores = found
    assert scores is not None
    np.testing.assert_allclose(scores, built.points.scores_of_each(built.queries, rows), rtol=1e-5, atol=1e-6)


def test_scores_are_left_to_the_points_when_the_query_is_so_short_that_digits_were_lost(affinity: Built) -> None:
    found = affinity.graph.search_scored(affinity.queries[:1] * np.float32(1e-4), 10)

    assert found is not None
    assert found[1] is None


def test_the_same_seed_builds_the_same_file(affinity: Built, tmp_path: Path) -> None:
    for name in ("one", "two"):
        Graph.build(affinity.points, RECIPE, seed=5).save(tmp_path / name)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_progress_reaches_the_total(affinity: Built) -> None:
    seen: list[tuple[str, int, int | None]] = []

    Graph.build(affinity.points, RECIPE, progress=lambda stage, done, total: seen.append((stage, done, total)))

    assert seen[-1] == ("build graph", 3000, 3000)


def test_a_saved_graph_answers_as_before(built: Built, tmp_path: Path) -> None:
    built.graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", RECIPE, count=3000, dimension=built.points.dimension)

    np.testing.assert_array_equal(loaded.search(built.queries, 10), built.graph.search(built.queries, 10))
    assert loaded.recognise(built.points)


def test_a_graph_does_not_recognise_other_points(built: Built) -> None:
    vectors = built.points.vectors
    other = Points(vectors=np.roll(vectors, 1, axis=0), scale=built.points.scale, bias=built.points.bias)

    assert built.graph.recognise(built.points)
    assert not built.graph.recognise(other)
    assert not built.graph.recognise(built.points.gather(np.arange(10)))


@pytest.mark.parametrize(
    ("recipe", "count", "dimension"),
    [
        (RECIPE, 3000, 16),
        (RECIPE, 2999, 17),
        (Recipe(reduction=Reduction.AUGMENTED_L2, m=16, ef_construction=100, ef_search=100), 3000, 17),
        (Recipe(reduction=Reduction.INNER_PRODUCT, m=32, ef_construction=100, ef_search=100), 3000, 17),
    ],
    ids=["dimension", "count", "reduction", "m"],
)
def test_a_file_of_another_graph_is_refused(
    affinity: Built, tmp_path: Path, recipe: Recipe, count: int, dimension: int
) -> None:
    affinity.graph.save(tmp_path / "graph")

    with pytest.raises(SnapshotSchemaError, match="expected"):
        Graph.load(tmp_path / "graph", recipe, count=count, dimension=dimension)


def test_a_file_too_short_for_a_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "graph").write_bytes(b"\0" * 40)

    with pytest.raises(SnapshotSchemaError, match="too short"):
        Graph.load(tmp_path / "graph", RECIPE, count=3000, dimension=17)


def test_a_disk_that_is_full_is_noticed(affinity: Built) -> None:
    with pytest.raises(BuildError, match="disk full"):
        affinity.graph.save(Path("/dev/full"))


@pytest.mark.parametrize(
    ("queries", "k"),
    [
        (np.ones(16), 1),
        (np.ones((2, 18)), 1),
        (np.full(17, np.nan), 1),
        (np.full(17, 1e30), 1),
        (np.ones(17), 0),
        (np.ones(17), 3001),
    ],
    ids=["short", "long", "nan", "overflow", "k=0", "k>count"],
)
def test_what_hnswlib_does_not_check_is_refused(affinity: Built, queries: Vectors, k: int) -> None:
    with pytest.raises(InvalidArgumentError):
        affinity.graph.search(queries, k)


def test_points_that_are_empty_or_not_finite_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="empty"):
        Graph.build(Points(vectors=np.empty((0, 3), np.float32)), RECIPE)
    for bad in (np.nan, np.inf, 1e30):
        with pytest.raises(InvalidArgumentError, match="finite"):
            Graph.build(Points(vectors=np.array([[1, 2], [bad, 1]], np.float32)), RECIPE)


@pytest.mark.parametrize("field", ["m", "ef_construction", "ef_search"])
@pytest.mark.parametrize("value", [-1, 0, 10_001])
def test_a_recipe_out_of_range_is_refused(field: str, value: int) -> None:
    numbers: dict[str, Any] = {"m": 16, "ef_construction": 100, "ef_search": 50, field: value}
    with pytest.raises(InvalidArgumentError, match=field):
        Recipe(reduction=Reduction.INNER_PRODUCT, **numbers)


def test_one_point_can_be_found() -> None:
    points = Points(vectors=np.ones((1, 3), np.float32))
    found = Graph.build(points, RECIPE).search(np.ones(3, np.float32), 1)

    assert found is not None
    assert found.tolist() == ranked(points, np.ones(3, np.float32))[0].tolist() == [0]


class Unreachable:
    """A native index from which no more than a few rows can be reached, as hnswlib says it."""

    def __init__(self) -> None:
        self.calls = 0
        self.reachable = 5

    def set_num_threads(self, threads: int) -> None: ...

    def set_ef(self, ef: int) -> None: ...

    def get_current_count(self) -> int:
        return 100

    def knn_query(self, _queries: Vectors, k: int, _threads: int) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        if k > self.reachable:
            raise RuntimeError("Cannot return the results in a contiguous 2D array. Probably ef or M is too small")
        return np.zeros((1, k), np.uint64), np.zeros((1, k), np.float32)


def test_a_query_that_is_answered_short_leaves_the_next_to_the_graph_until_many_are() -> None:
    native = Unreachable()
    graph = Graph(native, RECIPE, 3)
    query = np.ones(3, np.float32)

    assert [graph.search(query, 10) for _ in range(15)] == [None] * 15
    native.reachable = 10
    assert graph.search(query, 10) is not None
    native.reachable = 5
    assert graph.search(query, 12) is None
    assert graph.shortfalls == 16
    calls = native.calls
    assert [graph.search(query, k) for k in (8, 10, 50, 100)] == [None] * 4
    assert native.calls == calls
    assert graph.search(query, 5) is not None


def test_what_shortfalls_leak_is_bounded_however_their_widths_differ() -> None:
    native = Unreachable()
    graph = Graph(native, RECIPE, 3)

    for _ in range(20):
        for k in range(100, 7, -1):
            graph.search(np.ones(3, np.float32), k)

    assert native.calls == graph.shortfalls == 16 * 4


def test_the_first_shortfall_of_a_process_is_logged_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    graph_module._warn_of_shortfalls.cache_clear()
    for _ in range(2):
        graph = Graph(Unreachable(), RECIPE, 3)
        for _ in range(3):
            graph.search(np.ones(3, np.float32), 10)

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "exact search" in caplog.text
