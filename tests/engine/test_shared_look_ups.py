"""What one worker has read of the catalogue another one finds in the cache they share."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cache_process import CacheProcess
from engine_catalog import KIND, PRICE, TwinCatalog

from annserve.cache.bitmaps import BitmapCache
from annserve.cache.shared import SharedCache
from annserve.cache.shared_writer import BYTES_MIN
from annserve.domain.catalog import HistoryEntry, Schema
from annserve.domain.deadline import Deadline
from annserve.domain.query import CatalogUse
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.fresh_state import FreshState
from annserve.engine.histories import HistoryReader
from annserve.engine.metadata import MetadataReader
from annserve.engine.recommender import SnapshotRecommender

SECONDS = 10.0
FIELDS = (KIND.name, PRICE.name)


@pytest.fixture
def cache() -> Iterator[SharedCache]:
    # One of two workers' own would do the same: LMDB opens a file once in a process.
    with tempfile.TemporaryDirectory(prefix="annserve-test-") as name, CacheProcess("writer", Path(name), BYTES_MIN):
        shared = SharedCache(Path(name))
        yield shared
        shared.close()


@pytest.fixture
def catalog() -> TwinCatalog:
    return TwinCatalog({f"item-{number}": {"price": number, "kind": "common"} for number in range(5)})


def eventually_shared(cache: SharedCache, key: bytes) -> None:
    give_up = time.monotonic() + SECONDS
    while cache.get_shared(key) is None:
        assert time.monotonic() < give_up, "it never came to the instance"
        time.sleep(0.001)


def reader(catalog: TwinCatalog, cache: SharedCache) -> MetadataReader:
    made = MetadataReader(catalog, BitmapCache(), CatalogSettings(), cache)  # type: ignore[arg-type]
    made.forget_all()  # As its link to the keeper does when it stands.
    return made


async def metadata_of(reader: MetadataReader, item_id: str, use: CatalogUse) -> dict[str, object]:
    (found,) = await reader.of([item_id], FIELDS, Deadline.after(SECONDS), None, use)
    return dict(found)


async def test_metadata_that_one_worker_read_another_does_not_read_again(
    cache: SharedCache, catalog: TwinCatalog
) -> None:
    one, other, use = reader(catalog, cache), reader(catalog, cache), CatalogUse()
    read = await metadata_of(one, "item-3", CatalogUse())
    eventually_shared(cache, one._key("item-3"))

    assert await metadata_of(other, "item-3", use) == read == {"kind": ("common",), "price": (3.0,)}
    assert (use.database_calls, use.metadata_hits) == (0, 1)
    assert len(catalog.selected) == 1


async def test_metadata_read_before_a_change_was_told_is_read_again(cache: SharedCache, catalog: TwinCatalog) -> None:
    one, other = reader(catalog, cache), reader(catalog, cache)
    await metadata_of(one, "item-3", CatalogUse())
    eventually_shared(cache, one._key("item-3"))
    catalog.documents["item-3"]["price"] = 9
    other.forget(["item-3"])

    assert (await metadata_of(other, "item-3", CatalogUse()))["price"] == (9.0,)


async def test_metadata_read_before_a_worker_was_told_of_changes_is_nothing_to_it(
    cache: SharedCache, catalog: TwinCatalog
) -> None:
    one = reader(catalog, cache)
    await metadata_of(one, "item-3", CatalogUse())
    eventually_shared(cache, one._key("item-3"))
    catalog.documents["item-3"]["price"] = 9

    assert (await metadata_of(reader(catalog, cache), "item-3", CatalogUse()))["price"] == (9.0,)


async def test_metadata_of_fewer_fields_is_nothing_to_a_worker_that_was_told_of_more(
    cache: SharedCache, catalog: TwinCatalog
) -> None:
    fewer = TwinCatalog(catalog.documents)
    fewer.schema = Schema([KIND])
    one, other = reader(fewer, cache), reader(catalog, cache)
    await one.of(["item-3"], [KIND.name], Deadline.after(SECONDS), None, CatalogUse())
    eventually_shared(cache, one._key("item-3"))

    assert await metadata_of(other, "item-3", CatalogUse()) == {"kind": ("common",), "price": (3.0,)}


async def test_a_history_that_one_worker_read_another_does_not_read_again(
    cache: SharedCache, catalog: TwinCatalog, recommender: SnapshotRecommender
) -> None:
    fresh, use = FreshState(recommender.snapshot), CatalogUse()
    items = recommender.snapshot.items
    catalog.histories["user-1"] = [
        HistoryEntry(item_id=items.id(3), event="viewed", time_ms=5),
        HistoryEntry(item_id=items.id(4), event="disliked", time_ms=7),
    ]
    catalog.histories["user-2"] = []
    settings = CatalogSettings(history_ttl_seconds=60.0)
    one, other = (HistoryReader(catalog, fresh, settings, cache) for _ in range(2))
    read = await one.of("user-1", Deadline.after(SECONDS), CatalogUse())
    eventually_shared(cache, b"history\0user-1")

    found = await other.of("user-1", Deadline.after(SECONDS), use)

    assert (found.seen_rows.tolist(), found.taste_rows.tolist(), found.newest_ms) == ([3, 4], [3], 7)
    assert read.seen_rows.tolist() == [3, 4]
    assert (catalog.history_calls, use.history_hits, use.database_calls) == (1, 1, 0)
    assert (await other.of("user-2", Deadline.after(SECONDS), CatalogUse())).seen_rows.size == 0


async def test_a_shared_history_grows_no_older_than_one_of_the_workers_own(
    cache: SharedCache, catalog: TwinCatalog, recommender: SnapshotRecommender
) -> None:
    fresh, settings = FreshState(recommender.snapshot), CatalogSettings(history_ttl_seconds=1.0)
    one, other = (HistoryReader(catalog, fresh, settings, cache) for _ in range(2))
    began = time.monotonic()
    await one.of("user-1", Deadline.after(SECONDS), CatalogUse())
    eventually_shared(cache, b"history\0user-1")
    await other.of("user-1", Deadline.after(SECONDS), CatalogUse())
    while time.monotonic() < began + 1.15:
        time.sleep(0.01)
    catalog.histories["user-1"] = [
        HistoryEntry(item_id=recommender.snapshot.items.id(3), event="viewed", time_ms=5),
    ]

    assert (await other.of("user-1", Deadline.after(SECONDS), CatalogUse())).seen_rows.tolist() == [3]
