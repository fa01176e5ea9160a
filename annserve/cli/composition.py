"""The rooms of a server, joined."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from annserve.cache.bitmaps import BitmapCache
from annserve.cli.background import stand_back
from annserve.cli.catalog_source import CatalogSource
from annserve.domain.catalog import CatalogStore
from annserve.domain.events import ShownReader
from annserve.domain.fresh import FreshChange
from annserve.domain.ports import Recommender
from annserve.engine.catalog_recommender import CatalogRecommender
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.fresh_state import FreshState
from annserve.engine.metadata import MetadataReader
from annserve.engine.placement_recommender import PlacementRecommender, PlainQuestions
from annserve.engine.plain_recommender import PlainRecommender
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench
from annserve.keeper.frames import Header
from annserve.keeper.fresh_codec import TOPIC
from annserve.keeper.fresh_news import FreshNewsReader
from annserve.keeper.fresh_rows import FreshRows
from annserve.keeper.keeper import Keeper
from annserve.keeper.link_client import KeeperLink
from annserve.keeper.settings import KeeperSettings
from annserve.placements.recipe import PlacementSet
from annserve.service.metrics import Metrics
from annserve.settings import Settings
from annserve.snapshot.snapshot import Snapshot

FIRST_LOOK_SECONDS = 10.0
"""How long a server waits, before it answers, to learn which items the catalogue has."""

_LOOK_SECONDS = 0.02

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperPlace:
    """Where a worker finds its instance's keeper."""

    socket: Path
    slot: int
    """What the worker is called."""
    topics: Mapping[str, Callable[[Header, bytes], None]] = field(default_factory=dict)
    """Who is told what the keeper tells of what."""


@asynccontextmanager
async def opened_recommender(
    snapshot: Snapshot,
    settings: Settings,
    source: CatalogSource | None,
    keeper: KeeperPlace | None = None,
    metrics: Metrics | None = None,
    placements: Callable[[], PlacementSet] = PlacementSet,
    shown_reader: ShownReader | None = None,
) -> AsyncIterator[Recommender]:
    """Give what answers from ``snapshot`` and the catalogue of ``source``, which is followed meanwhile.

    Args:
        snapshot: What to answer from.
        settings: How.
        source: The catalogue; None for a server without one.
        keeper: Who follows it; None to do that here. A file is followed here in any case: it is in this memory.
        metrics: Takes what answers use of the catalogue.
        placements: Returns the placements that there are now; none, unless given.
        shown_reader: Knows what users were shown lately; without one nothing is rotated.
    """
    # The event loop goes first: whoever refuses, or answers at once, is quick.
    executor = ThreadPoolExecutor(settings.executor_threads, "annserve-search", initializer=stand_back)
    fresh = FreshState(snapshot)
    recommender = SnapshotRecommender(snapshot, fresh)

    def with_placements(inner: PlainQuestions) -> Recommender:
        return PlacementRecommender(inner, recommender, placements, shown_reader, settings.catalog_wait_ms / 1_000)

    workbench = Workbench(executor, settings.executor_threads, waited=(metrics or Metrics()).thread_wait)
    try:
        if source is None:
            async with _told_of_fresh_items(fresh, keeper):
                yield with_placements(PlainRecommender(recommender, workbench))
        else:
            store = source.open()
            if keeper is not None and source.is_mongodb:
                opening = _linked_catalog(recommender, workbench, settings, store, keeper)
            else:
                opening = _followed_catalog(recommender, workbench, settings, store, keeper)
            async with opening as opened:
                if metrics is not None:
                    metrics.follow_fields(
                        "annserve_catalog", "What answers took of the catalogue.", "kind", opened.used
                    )
                yield with_placements(opened)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def _linked_catalog(
    recommender: SnapshotRecommender,
    workbench: Workbench,
    settings: Settings,
    store: CatalogStore,
    place: KeeperPlace,
) -> AsyncIterator[CatalogRecommender]:
    """Have the instance's keeper follow ``store``."""
    bitmaps, reading = BitmapCache(), _catalog_settings_of(settings)
    metadata = MetadataReader(store, bitmaps, reading)
    link = KeeperLink(
        place.socket,
        recommender.snapshot.id,
        bitmaps,
        [metadata.forget],
        [metadata.forget_all],
        slot=place.slot,
        settings=keeper_settings_of(settings),
    )
    news = FreshNewsReader(recommender.fresh)
    _subscribe(link, news, place)
    link.start()
    try:
        await asyncio.gather(_first_look(bitmaps), news.wait())
        yield CatalogRecommender(recommender, workbench, store, bitmaps, link, metadata, reading)
    finally:
        await link.stop()
        await store.close()


@asynccontextmanager
async def _followed_catalog(
    recommender: SnapshotRecommender,
    workbench: Workbench,
    settings: Settings,
    store: CatalogStore,
    place: KeeperPlace | None,
) -> AsyncIterator[CatalogRecommender]:
    """Follow ``store`` here; the instance's keeper, where there is one, tells of fresh items only."""
    bitmaps, reading = BitmapCache(), _catalog_settings_of(settings)
    metadata = MetadataReader(store, bitmaps, reading)
    rows = FreshRows(recommender.snapshot.items)
    keeper = Keeper(store, rows, bitmaps, keeper_settings_of(settings), [metadata.forget], [metadata.forget_all])
    keeper.start()
    try:
        await _first_look(bitmaps)
        async with _told_of_fresh_items(recommender.fresh, place, lambda changes: keeper.learn(rows.add(changes))):
            yield CatalogRecommender(recommender, workbench, store, bitmaps, keeper, metadata, reading)
    finally:
        await keeper.stop()
        await store.close()


@asynccontextmanager
async def _told_of_fresh_items(
    fresh: FreshState, place: KeeperPlace | None, listener: Callable[[Sequence[FreshChange]], None] | None = None
) -> AsyncIterator[None]:
    """Have ``fresh`` follow what the instance's keeper, where there is one, tells of."""
    if place is None:
        yield
        return
    link = KeeperLink(place.socket, fresh.snapshot_id, BitmapCache(), slot=place.slot)
    news = FreshNewsReader(fresh, listener)
    _subscribe(link, news, place)
    link.start()
    try:
        await news.wait()
        yield
    finally:
        await link.stop()


def _subscribe(link: KeeperLink, news: FreshNewsReader, place: KeeperPlace) -> None:
    for topic, hear in {**place.topics, TOPIC: news.hear}.items():
        link.subscribe(topic, hear)


def _catalog_settings_of(settings: Settings) -> CatalogSettings:
    return CatalogSettings(
        max_staleness_seconds=settings.catalog_max_staleness_ms / 1_000,
        wait_seconds=settings.catalog_wait_ms / 1_000,
        metadata_ttl_seconds=settings.catalog_ttl_ms / 1_000,
    )


def keeper_settings_of(settings: Settings) -> KeeperSettings:
    """Return how the catalogue is to be followed."""
    return KeeperSettings(ttl_seconds=settings.catalog_ttl_ms / 1_000)


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
