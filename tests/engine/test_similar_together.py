"""Items asked about together get what each would get by itself, and whatever is not plain is left to be asked so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from annserve.domain.fresh import FreshChange
from annserve.domain.query import Mode, Options, Query, SearchPath
from annserve.engine.fresh_state import FreshState
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.similar_together import TOGETHER_MAX, SimilarTogether
from annserve.search.cost import CostModel
from annserve.snapshot.snapshot import Snapshot, load_snapshot


def batches(ids: list[str], sizes: tuple[int, ...] = (1, 2, 7, 32)) -> Iterator[list[str]]:
    """Cut ``ids`` into batches of different sizes."""
    start = number = 0
    while start < len(ids):
        size = sizes[number % len(sizes)]
        yield ids[start : start + size]
        start, number = start + size, number + 1


@pytest.mark.parametrize("k", [1, 10, 11, 40])
def test_each_gets_what_it_would_get_by_itself(recommender: SnapshotRecommender, k: int) -> None:
    together = SimilarTogether(recommender)
    items = recommender.snapshot.items
    ids = [items.id(row) for row in range(0, len(items), 3)]

    for batch in batches(ids):
        for item_id, found in zip(batch, together.search(batch, k), strict=True):
            alone = recommender.rank(Query(mode=Mode.SIMILAR, item_ids=(item_id,), options=Options(k=k)))
            assert found is not None
            assert found == (alone.rows.tolist(), alone.scores.tolist())
            assert alone.search_path is SearchPath.HNSW
            assert alone.selectivity == together.selectivity


def test_an_unknown_item_is_left_out_and_the_others_are_not(recommender: SnapshotRecommender) -> None:
    together = SimilarTogether(recommender)
    known = ["작품-1", "작품-2"]

    first, missing, second = together.search(["작품-1", "nobody", "작품-2"], 10)

    assert missing is None
    assert [first, second] == together.search(known, 10)
    assert together.search(["nobody"], 10) == [None]


def test_nothing_is_answered_while_items_are_not_those_of_the_snapshot(snapshot: Snapshot) -> None:
    fresh = FreshState(snapshot)
    together = SimilarTogether(SnapshotRecommender(snapshot, fresh))
    assert together.search(["작품-1"], 10) != [None]

    gone = FreshChange(item_id="작품-5", number=0, vector=None, popularity=0.0, is_deleted=True)
    fresh.apply([gone], version=1)

    assert together.search(["작품-1"], 10) == [None]


def test_nothing_is_answered_while_the_catalogue_may_leave_items_out(recommender: SnapshotRecommender) -> None:
    assert SimilarTogether(recommender, lambda: False).search(["작품-1", "작품-2"], 10) == [None, None]


def test_so_many_are_asked_together_as_the_loop_has_time_for(snapshot: Snapshot) -> None:
    dear = load_snapshot(snapshot.path, cost=CostModel(graph_us=300.0, exact_us=1e6))
    too_dear = load_snapshot(snapshot.path, cost=CostModel(graph_us=3_000.0, exact_us=1e6))
    by_scan = load_snapshot(snapshot.path, cost=CostModel(graph_us=3_000.0))
    ids = [snapshot.items.id(row) for row in range(4)]

    assert 1 < SimilarTogether(SnapshotRecommender(snapshot)).at_most(10) <= TOGETHER_MAX
    assert 1 <= SimilarTogether(SnapshotRecommender(dear)).at_most(10) <= 3
    assert SimilarTogether(SnapshotRecommender(too_dear)).at_most(10) == 0
    assert SimilarTogether(SnapshotRecommender(by_scan)).at_most(10) == 0
    assert SimilarTogether(SnapshotRecommender(by_scan)).search(ids, 10) == [None] * 4
