"""What is told of an answer that is made of things read at different times."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from engine_catalog import KIND, PRICE, TwinBuilder, TwinCatalog

from annserve.cache.bitmaps import BitmapCache
from annserve.domain.catalog import HistoryEntry
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import DeadlineExceededError
from annserve.domain.filter import Equals, Or, Range, canonical
from annserve.domain.query import CatalogUse, Degradation, Mode, Options, Query
from annserve.engine.catalog_recommender import CatalogRecommender
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.histories import HistoryReader
from annserve.engine.metadata import MetadataReader
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench


async def test_candidates_checked_beside_a_leaf_known_from_before_are_as_old_as_the_leaf(
    recommender: SnapshotRecommender,
) -> None:
    items = recommender.snapshot.items
    store = TwinCatalog({items.id(row): {"price": row % 100, "kind": "common"} for row in range(len(items))})
    bitmaps, settings = BitmapCache(), CatalogSettings()
    builder = TwinBuilder(store, items, bitmaps)
    metadata = MetadataReader(store, bitmaps, settings)  # type: ignore[arg-type]
    workbench = Workbench(ThreadPoolExecutor(1))
    engine = CatalogRecommender(recommender, workbench, store, bitmaps, builder, metadata, settings)  # type: ignore[arg-type]
    known, unknown = Equals(KIND, "common"), Range(PRICE, maximum=49.0)
    builder.finish(known).read_at = time.monotonic() - 100.0

    query = Query(mode=Mode.SIMILAR, item_ids=(items.id(5),), options=Options(filter=canonical(Or((known, unknown)))))
    answer = await engine.recommend(query)

    assert answer.selectivity is None
    assert answer.catalog_age_seconds is not None
    assert answer.catalog_age_seconds >= 100.0


async def test_who_joins_a_look_up_of_a_history_waits_as_long_as_she_can(recommender: SnapshotRecommender) -> None:
    store = TwinCatalog({})
    seen = recommender.snapshot.items.id(3)
    store.histories["user-1"] = [HistoryEntry(item_id=seen, event="viewed", time_ms=1)]
    store.gate.clear()
    reader = HistoryReader(store, recommender.snapshot, CatalogSettings())  # type: ignore[arg-type]

    hasty = asyncio.create_task(reader.of("user-1", Deadline.after(0.01), CatalogUse()))
    patient = asyncio.create_task(reader.of("user-1", NO_DEADLINE, CatalogUse()))
    with pytest.raises(DeadlineExceededError):
        await hasty
    store.gate.set()

    assert (await patient).seen_rows.tolist() == [3]
    assert store.history_calls == 1


async def test_more_text_than_an_answer_carries_is_left_out_and_said(recommender: SnapshotRecommender) -> None:
    items = recommender.snapshot.items
    store = TwinCatalog({items.id(row): {"price": 1, "kind": "가" * 8_000} for row in range(len(items))})
    bitmaps, settings = BitmapCache(), CatalogSettings(wait_seconds=5.0)
    builder = TwinBuilder(store, items, bitmaps)
    builder.finish(None)
    metadata = MetadataReader(store, bitmaps, settings)  # type: ignore[arg-type]
    workbench = Workbench(ThreadPoolExecutor(1))
    engine = CatalogRecommender(recommender, workbench, store, bitmaps, builder, metadata, settings)  # type: ignore[arg-type]

    def query(k: int) -> Query:
        return Query(mode=Mode.SIMILAR, item_ids=(items.id(5),), options=Options(k=k, read_mask=("kind",)))

    few, many = await engine.recommend(query(10)), await engine.recommend(query(100))

    assert len(few.metadata) == 10
    assert few.degradations == ()
    assert (len(many.item_ids), many.metadata, many.degradations) == (100, (), (Degradation.METADATA_UNAVAILABLE,))


async def test_no_further_round_is_checked_for_a_question_that_is_answered(recommender: SnapshotRecommender) -> None:
    items = recommender.snapshot.items
    store = TwinCatalog({items.id(row): {"price": 1, "kind": "common"} for row in range(len(items))})
    bitmaps, settings = BitmapCache(), CatalogSettings()
    builder = TwinBuilder(store, items, bitmaps)
    builder.finish(None)
    metadata = MetadataReader(store, bitmaps, settings)  # type: ignore[arg-type]
    workbench = Workbench(ThreadPoolExecutor(1))
    engine = CatalogRecommender(recommender, workbench, store, bitmaps, builder, metadata, settings)  # type: ignore[arg-type]
    store.gate.clear()
    nothing = Equals(KIND, "rare")
    query = Query(mode=Mode.SIMILAR, item_ids=(items.id(5),), options=Options(filter=canonical(nothing)))
    asking = asyncio.create_task(engine.recommend(query))
    while not store.selected:
        await asyncio.sleep(0)
    builder.finish(nothing)

    assert (await asking).item_ids == []
    store.gate.set()
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(store.selected) == 1
