"""The rooms of a server, joined."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from annserve.cache.bitmaps import BitmapCache
from annserve.cli.catalog_source import CatalogSource
from annserve.domain.catalog import CatalogStore
from annserve.domain.ports import Recommender
from annserve.engine.catalog_recommender import CatalogRecommender
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.metadata import MetadataReader
from annserve.engine.plain_recommender import PlainRecommender
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench
from annserve.keeper.keeper import Keeper
from annserve.keeper.settings import KeeperSettings
from annserve.settings import Settings
from annserve.snapshot.snapshot import Snapshot

FIRST_LOOK_SECONDS = 10.0
"""How long a server waits, before it answers, to learn which items the catalogue has."""

_LOOK_SECONDS = 0.02

_log = logging.getLogger(__name__)


@asynccontextmanager
async def opened_recommender(
    snapshot: Snapshot, settings: Settings, source: CatalogSource | None
) -> AsyncIterator[Recommender]:
    """Give what answers from ``snapshot`` and the catalogue of ``source``, which it keeps following meanwhile."""
    executor = ThreadPoolExecutor(settings.executor_threads, thread_name_prefix="annserve-search")
    recommender, workbench = SnapshotRecommender(snapshot), Workbench(executor)
    try:
        if source is None:
            yield PlainRecommender(recommender, workbench)
        else:
            async with _opened_catalog(recommender, workbench, settings, source.open()) as opened:
                yield opened
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def _opened_catalog(
    recommender: SnapshotRecommender, workbench: Workbench, settings: Settings, store: CatalogStore
) -> AsyncIterator[Recommender]:
    bitmaps = BitmapCache()
    ttl_seconds = settings.catalog_ttl_ms / 1_000
    reading = CatalogSettings(
        max_staleness_seconds=settings.catalog_max_staleness_ms / 1_000,
        wait_seconds=settings.catalog_wait_ms / 1_000,
        metadata_ttl_seconds=ttl_seconds,
    )
    metadata = MetadataReader(store, bitmaps, reading)
    keeper = Keeper(
        store,
        recommender.snapshot.items,
        bitmaps,
        KeeperSettings(ttl_seconds=ttl_seconds),
        listeners=[metadata.forget],
        lost_listeners=[metadata.forget_all],
    )
    keeper.start()
    try:
        await _first_look(bitmaps)
        yield CatalogRecommender(recommender, workbench, store, bitmaps, keeper, metadata, reading)
    finally:
        await keeper.stop()
        await store.close()
        _log.info("catalogue: %s", keeper.counters)


async def _first_look(bitmaps: BitmapCache) -> None:
    try:
        async with asyncio.timeout(FIRST_LOOK_SECONDS):
            while bitmaps.present is None:
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        _log.warning(
            "the catalogue does not answer: serving without it, filters are UNAVAILABLE until it does; is the server "
            "of --catalog up?"
        )
