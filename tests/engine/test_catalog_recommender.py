from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from engine_catalog import KIND, PRICE, TwinBuilder, TwinCatalog
from pyroaring import BitMap

from annserve.cache.bitmaps import BitmapCache
from annserve.domain.catalog import HistoryEntry
from annserve.domain.deadline import Deadline
from annserve.domain.errors import CatalogUnavailableError, DeadlineExceededError, FieldNotIndexedError
from annserve.domain.filter import And, Equals, Filter, Not, Range, canonical
from annserve.domain.query import Degradation, LimitingRule, Mode, Options, Query, SearchPath, Source
from annserve.engine.catalog_recommender import CatalogRecommender
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.knowledge import Knowledge
from annserve.engine.metadata import MetadataReader
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench
from annserve.search.restriction import Restriction

HALF = Range(PRICE, maximum=49.0)
FEW = Equals(KIND, "rare")
SHARES: dict[str, Filter] = {"half": HALF, "tenth": Range(PRICE, maximum=9.0), "few": FEW}


@dataclass
class Setting:
    """A recommender with a catalogue in memory, and what it is made of."""

    engine: CatalogRecommender
    core: SnapshotRecommender
    metadata: MetadataReader
    store: TwinCatalog
    builder: TwinBuilder
    bitmaps: BitmapCache

    def oracle(self, query: Query, **knowledge: Any) -> list[str]:
        """Return the exact answer over what passes."""
        items = self.core.snapshot.items
        rows = (items.row(item_id) for item_id in self.store.passing(query.options.filter))
        allowed = Restriction(BitMap(row for row in rows if row is not None), len(items))
        exact = Query(
            mode=query.mode,
            item_ids=query.item_ids,
            user_id=query.user_id,
            recent_items=query.recent_items,
            user_impact=query.user_impact,
            options=Options(k=query.options.k, filter=query.options.filter, exact=True),
        )
        return list(self.core.recommend(exact, knowledge=Knowledge(allowed=allowed, **knowledge)).item_ids)


@pytest.fixture
async def setting(recommender: SnapshotRecommender) -> Setting:
    items = recommender.snapshot.items
    rng = np.random.default_rng(3)
    documents = {
        items.id(row): {"price": int(rng.integers(0, 100)), "kind": "rare" if row % 150 == 7 else "common"}
        for row in range(len(items))
    }
    store, bitmaps = TwinCatalog(documents), BitmapCache()
    builder = TwinBuilder(store, items, bitmaps)
    settings = CatalogSettings(wait_seconds=0.05)
    metadata = MetadataReader(store, bitmaps, settings)  # type: ignore[arg-type]
    engine = CatalogRecommender(
        recommender,
        Workbench(ThreadPoolExecutor(1), wait_seconds_max=math.inf),  # Costs are pretended here.
        store,  # type: ignore[arg-type]  # A twin has only what the engine uses.
        bitmaps,
        builder,
        metadata,
        settings,
    )
    return Setting(engine, recommender, metadata, store, builder, bitmaps)


def queries(setting: Setting, filter_: Filter, **options: Any) -> Iterator[Query]:
    """Return a question of each mode."""
    seed = setting.core.snapshot.items.id(11)
    asked = Options(filter=canonical(filter_), **options)
    yield Query(mode=Mode.SIMILAR, item_ids=(seed,), options=asked)
    yield Query(mode=Mode.PERSONALIZE, user_id="user-3", options=asked)
    yield Query(mode=Mode.RELATED, item_ids=(seed,), user_id="user-3", user_impact=0.4, options=asked)
    yield Query(mode=Mode.PERSONALIZE, user_id="nobody", options=asked)


@pytest.mark.parametrize("share", SHARES)
async def test_what_candidates_are_checked_for_is_what_exact_search_finds(setting: Setting, share: str) -> None:
    complete = 0
    for query in queries(setting, SHARES[share], exact=True):
        asking = asyncio.create_task(setting.engine.recommend(query))
        done, _ = await asyncio.wait({asking}, timeout=0.3)
        if not done:  # Too few candidates passed: the leaf has to be read.
            setting.builder.finish(query.options.filter)  # type: ignore[arg-type]
        answer = await asking
        complete += bool(done)

        assert list(answer.item_ids) == setting.oracle(query)
        assert len(answer.item_ids) == 10
        assert (answer.selectivity is None) == bool(done)
        assert answer.catalog_age_seconds is not None
        setting.bitmaps.clear()
        setting.builder.asked.clear()
    assert complete >= {"half": 4, "tenth": 3, "few": 0}[share]


async def test_a_leaf_that_is_read_sooner_than_candidates_are_checked_answers(setting: Setting) -> None:
    setting.store.gate.clear()
    query = next(queries(setting, FEW, explain=True))
    asking = asyncio.create_task(setting.engine.recommend(query))
    while not setting.store.selected:
        await asyncio.sleep(0)
    setting.builder.finish(FEW)

    answer = await asking

    assert list(answer.item_ids) == setting.oracle(query)
    assert answer.selectivity is not None
    setting.store.gate.set()


async def test_known_leaves_answer_without_the_store_also_in_a_combination_never_seen(setting: Setting) -> None:
    for leaf in (HALF, FEW, None):
        setting.builder.finish(leaf)
    setting.store.error = CatalogUnavailableError("gone")
    setting.store.available = False

    for query in queries(setting, And((HALF, Not(FEW))), explain=True):
        if query.user_id is not None:
            continue
        answer = await setting.engine.recommend(query)

        assert list(answer.item_ids) == setting.oracle(query)
        assert answer.explanation is not None
        assert answer.explanation.catalog_use is not None
        assert answer.explanation.catalog_use.bitmap_hits == 3
        assert answer.explanation.catalog_use.database_calls == 0
    assert not setting.store.selected


async def test_fewer_than_asked_come_with_the_filter_to_blame(setting: Setting) -> None:
    setting.builder.finish(FEW)
    answer = await setting.engine.recommend(next(queries(setting, FEW, k=50)))

    assert len(answer.item_ids) == 20
    assert answer.shortfall is not None
    assert answer.shortfall.limiting_rule is LimitingRule.FILTER
    assert answer.shortfall.eligible == 20


async def test_what_is_not_known_of_a_store_that_is_away_is_unavailable_at_once(setting: Setting) -> None:
    setting.store.available = False

    with pytest.raises(CatalogUnavailableError):
        await setting.engine.recommend(next(queries(setting, HALF)))

    assert not setting.store.selected


async def test_a_stale_cache_answers_and_says_so(setting: Setting) -> None:
    setting.builder.finish(HALF)
    setting.store.available = False
    setting.bitmaps.stale = True

    answer = await setting.engine.recommend(next(queries(setting, HALF)))

    assert Degradation.CATALOG_STALE in answer.degradations
    assert len(answer.item_ids) == 10


async def test_max_staleness_of_zero_asks_the_store_whatever_is_known(setting: Setting) -> None:
    setting.builder.finish(HALF)
    query = next(queries(setting, HALF, max_staleness_seconds=0.0))
    best = setting.oracle(query)[0]
    setting.store.documents[best]["price"] = 99  # Nobody told the bitmap.

    answer = await setting.engine.recommend(query)

    assert best not in answer.item_ids
    assert setting.store.selected


async def test_a_field_that_must_not_be_tested_fails_whoever_is_faster(setting: Setting) -> None:
    query = next(queries(setting, HALF))
    setting.builder.build(HALF).set_exception(FieldNotIndexedError("price"))

    with pytest.raises(FieldNotIndexedError):
        await setting.engine.recommend(query)


async def test_a_filter_that_cannot_be_resolved_in_time_ends_at_the_deadline(setting: Setting) -> None:
    setting.store.gate.clear()
    started = time.monotonic()

    with pytest.raises(DeadlineExceededError):
        await setting.engine.recommend(next(queries(setting, HALF)), Deadline.after(0.1))

    assert time.monotonic() - started < 1.0
    setting.store.gate.set()


async def test_items_deleted_from_the_catalogue_never_surface(setting: Setting) -> None:
    query = Query(mode=Mode.SIMILAR, item_ids=(setting.core.snapshot.items.id(11),))
    first = await setting.engine.recommend(query)
    gone = first.item_ids[0]
    del setting.store.documents[gone]
    setting.builder.finish(None)

    answer = await setting.engine.recommend(query)

    assert gone not in answer.item_ids
    assert len(answer.item_ids) == 10


async def test_what_the_history_holds_is_not_returned_and_an_unknown_user_is_folded_in(setting: Setting) -> None:
    items = setting.core.snapshot.items
    liked = [items.id(row) for row in (5, 6, 7)]
    setting.store.histories["newcomer"] = [
        *(HistoryEntry(item_id=item_id, event="liked", time_ms=number) for number, item_id in enumerate(liked)),
        HistoryEntry(item_id=items.id(8), event="disliked", time_ms=9),
        HistoryEntry(item_id="no vector", event="liked", time_ms=9),
    ]
    answer = await setting.engine.recommend(Query(mode=Mode.PERSONALIZE, user_id="newcomer"))
    stranger = await setting.engine.recommend(Query(mode=Mode.PERSONALIZE, user_id="stranger"))

    taste = {"seen_rows": np.array([5, 6, 7, 8]), "taste_rows": np.array([5, 6, 7])}
    assert answer.source is Source.FOLD_IN
    assert list(answer.item_ids) == setting.oracle(Query(mode=Mode.PERSONALIZE, user_id="newcomer"), **taste)
    assert not {*liked, items.id(8)} & set(answer.item_ids)
    assert stranger.source is Source.POPULAR


async def test_a_known_user_is_folded_in_only_when_the_history_is_younger_than_the_snapshot(setting: Setting) -> None:
    item_id = setting.core.snapshot.items.id(5)
    setting.store.histories["user-1"] = [HistoryEntry(item_id=item_id, event="liked", time_ms=1)]
    setting.store.histories["user-2"] = [HistoryEntry(item_id=item_id, event="liked", time_ms=2**42)]

    old = await setting.engine.recommend(Query(mode=Mode.PERSONALIZE, user_id="user-1"))
    new = await setting.engine.recommend(Query(mode=Mode.PERSONALIZE, user_id="user-2"))

    assert (old.source, new.source) == (Source.USER_VECTOR, Source.FOLD_IN)
    assert item_id not in {*old.item_ids, *new.item_ids}


async def test_equal_history_look_ups_are_one_and_are_kept_under_their_own_user(setting: Setting) -> None:
    setting.store.gate.clear()
    asking = [
        asyncio.create_task(setting.engine.recommend(Query(mode=Mode.PERSONALIZE, user_id=user)))
        for user in ("user-1", "user-1", "user-2", "user-1")
    ]
    for _ in range(10):
        await asyncio.sleep(0)
    setting.store.gate.set()
    answers = await asyncio.gather(*asking)

    assert setting.store.history_calls == 2
    assert answers[0].item_ids == answers[1].item_ids != answers[2].item_ids


@pytest.mark.parametrize("failing", ["error", "silence"])
async def test_without_histories_and_metadata_an_answer_says_what_it_lacks(setting: Setting, failing: str) -> None:
    if failing == "error":
        setting.store.error = CatalogUnavailableError("gone")
    else:
        setting.store.error = DeadlineExceededError("history")  # The store keeps to the deadline it is given.
    query = Query(mode=Mode.PERSONALIZE, user_id="user-1", options=Options(read_mask=("price",)))

    answer = await setting.engine.recommend(query)

    lacking = {Degradation.HISTORY_UNAVAILABLE, Degradation.METADATA_UNAVAILABLE}
    # Nor is it known which items the catalogue has.
    assert set(answer.degradations) == {*lacking, Degradation.CATALOG_STALE}
    setting.builder.finish(None)
    assert set((await setting.engine.recommend(query)).degradations) == lacking
    assert len(answer.item_ids) == 10


async def test_metadata_comes_with_each_item_and_is_kept_until_it_changes(setting: Setting) -> None:
    query = Query(
        mode=Mode.SIMILAR, item_ids=(setting.core.snapshot.items.id(11),), options=Options(read_mask=("price", "kind"))
    )
    first = await setting.engine.recommend(query)
    expected = [
        {"price": (float(setting.store.documents[item_id]["price"]),), "kind": ("common",)}
        for item_id in first.item_ids
    ]
    assert list(first.metadata) == expected
    calls = len(setting.store.selected)

    changed = first.item_ids[0]
    setting.store.documents[changed] = {"price": 1_000}
    assert list((await setting.engine.recommend(query)).metadata) == expected
    assert len(setting.store.selected) == calls

    setting.metadata.forget([changed])
    after = await setting.engine.recommend(query)
    assert setting.store.selected[-1] == (changed,)
    assert after.metadata[0] == {"price": (1_000.0,)}


async def test_candidates_bring_their_metadata_along(setting: Setting) -> None:
    query = next(queries(setting, HALF, read_mask=("price",)))

    answer = await setting.engine.recommend(query)

    assert len(setting.store.selected) == 1
    assert answer.search_path in (SearchPath.HNSW, SearchPath.EXACT)
    assert [one["price"] for one in answer.metadata] == [
        (float(setting.store.documents[item_id]["price"]),) for item_id in answer.item_ids
    ]
