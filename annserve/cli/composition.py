"""The rooms of a server, joined."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from annserve.cache.bitmaps import BitmapCache
from annserve.cache.shared import SharedCache
from annserve.cli.background import NICENESS, SEARCHING_NICENESS, in_background, stand_back
from annserve.cli.catalog_source import CatalogSource, keeper_settings_of
from annserve.cli.event_source import event_store_of, event_words_of
from annserve.domain.catalog import CatalogStore
from annserve.domain.erasure import ErasedUsers
from annserve.domain.errors import AnnserveError
from annserve.domain.events import Event, EventStore, EventType, ShownReader
from annserve.domain.fresh import FreshChange
from annserve.domain.model import Space
from annserve.domain.ports import Recommender
from annserve.engine.catalog_recommender import CatalogRecommender
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.fresh_state import FreshState
from annserve.engine.histories import HistorySource
from annserve.engine.kept_shown import KeptShown
from annserve.engine.metadata import MetadataReader
from annserve.engine.outcomes import HistoryWithOutcomes
from annserve.engine.placement_recommender import PlacementRecommender, PlainQuestions
from annserve.engine.plain_recommender import PlainRecommender
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.similar_together import SimilarTogether
from annserve.engine.user_changes import UserChanges
from annserve.engine.workbench import Workbench
from annserve.keeper import erasures as keeper_erasures
from annserve.keeper import fresh_codec
from annserve.keeper.erasures import ErasureNews
from annserve.keeper.frames import Header
from annserve.keeper.fresh_news import FreshNewsReader
from annserve.keeper.fresh_rows import FreshRows
from annserve.keeper.keeper import Keeper
from annserve.keeper.link_client import KeeperLink
from annserve.placements.recipe import PlacementSet
from annserve.search.recall_sampler import RecallSampler
from annserve.service.event_queue import EventQueue
from annserve.service.metrics import Metrics
from annserve.service.server import Served
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Users:
    """What a worker knows of users beside the snapshot."""

    events: EventStore
    shown: ShownReader
    words: Mapping[EventType, str]
    changes: UserChanges
    erased: ErasedUsers
    news: ErasureNews

    @asynccontextmanager
    async def queue(self, calls_max: int) -> AsyncIterator[EventQueue]:
        """Give what takes events of half of ``calls_max`` calls; it writes what it has before the store is closed."""
        queue = EventQueue(self.events, self._is_erased, self._written, max(1, calls_max // 2))
        try:
            yield queue
        finally:
            await queue.close()
            await self.events.close()

    def histories(self, store: CatalogStore) -> HistorySource:
        """Return histories as ``store`` and events tell them."""
        return HistoryWithOutcomes(store, self.events, self.words)

    def _is_erased(self, event: Event) -> bool:
        return event.time_ms <= self.erased.erased_ms(event.user_id)

    def _written(self, events: Sequence[Event]) -> None:
        self.changes.note(event.user_id for event in events)


@asynccontextmanager
async def opened_service(
    snapshot: Snapshot,
    settings: Settings,
    source: CatalogSource | None,
    keeper: KeeperPlace | None = None,
    metrics: Metrics | None = None,
    cache: SharedCache | None = None,
    placements: Callable[[], PlacementSet] = PlacementSet,
) -> AsyncIterator[Served]:
    """Give what takes events and what answers from ``snapshot`` and the catalogue of ``source``, which it follows.

    Args:
        snapshot: What to answer from.
        settings: How.
        source: The catalogue; None for a server without one.
        keeper: Who follows it; None to do that here. A file is followed here in any case: it is in this memory.
        metrics: Takes what answers use of the catalogue.
        cache: What the instance's workers share of it, where the keeper follows it for all of them.
        placements: Returns the placements that there are now; none, unless given.
    """
    # The event loop goes first: whoever refuses, or answers at once, is quick.
    executor = ThreadPoolExecutor(
        settings.executor_threads, "annserve-search", initializer=stand_back, initargs=(SEARCHING_NICENESS,)
    )
    fresh = FreshState(snapshot)
    erased = ErasedUsers()
    recommender = SnapshotRecommender(snapshot, fresh, erased)
    workbench = Workbench(executor, settings.executor_threads, waited=(metrics or Metrics()).thread_wait)
    store = None if source is None else _opened(source)
    users = _users_of(settings, source, store, erased)

    def placed(inner: PlainQuestions) -> Recommender:
        return PlacementRecommender(inner, recommender, placements, users.shown, settings.catalog_wait_ms / 1_000)

    sampler = _sampler_of(snapshot, settings.recall_share, metrics)
    try:
        if source is None or store is None:
            async with _told_of_fresh_items(fresh, users.news, keeper), users.queue(settings.calls_max) as events:
                yield Served(
                    recommender=placed(PlainRecommender(recommender, workbench)),
                    events=events,
                    similar=SimilarTogether(recommender),
                )
        else:
            if keeper is not None and source.is_mongodb:
                opening = _linked_catalog(recommender, workbench, settings, store, users, keeper, cache)
            else:
                opening = _followed_catalog(recommender, workbench, settings, store, users, keeper)
            async with opening as opened, users.queue(settings.calls_max) as events:
                if metrics is not None:
                    metrics.follow_fields(
                        "annserve_catalog", "What answers took of the catalogue.", "kind", opened.used
                    )
                similar = SimilarTogether(recommender, opened.is_open)
                yield Served(recommender=placed(opened), events=events, similar=similar)
    finally:
        if sampler is not None:
            sampler.close()
        executor.shutdown(wait=False, cancel_futures=True)


def _sampler_of(snapshot: Snapshot, share: float, metrics: Metrics | None) -> RecallSampler | None:
    if metrics is None or not share:
        return None
    spaces = {Space.AFFINITY: snapshot.affinity, Space.LIKENESS: snapshot.likeness}
    return RecallSampler(spaces, share, metrics.recalled, partial(stand_back, SEARCHING_NICENESS))


def _opened(source: CatalogSource) -> CatalogStore:
    """Open ``source``. A file is read whole, which whoever answers calls on the same processors should not feel."""
    return source.open() if source.is_mongodb else in_background(source.open, NICENESS)


def _users_of(
    settings: Settings, source: CatalogSource | None, store: CatalogStore | None, erased: ErasedUsers
) -> _Users:
    events, changes = event_store_of(settings, source, store), UserChanges()
    return _Users(
        events=events,
        shown=KeptShown(events, changes, erased),
        words=event_words_of(settings),
        changes=changes,
        erased=erased,
        news=ErasureNews(erased, changes.note_all),
    )


@asynccontextmanager
async def _linked_catalog(
    recommender: SnapshotRecommender,
    workbench: Workbench,
    settings: Settings,
    store: CatalogStore,
    users: _Users,
    place: KeeperPlace,
    cache: SharedCache | None,
) -> AsyncIterator[CatalogRecommender]:
    """Have the instance's keeper follow ``store``."""
    bitmaps, reading = BitmapCache(), _catalog_settings_of(settings)
    metadata = MetadataReader(store, bitmaps, reading, cache)
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
    _subscribe(link, news, users.news, place)
    link.start()
    try:
        await asyncio.gather(
            _first_look(bitmaps), news.wait(), users.news.wait(), _connected(store, recommender.snapshot)
        )
        histories = users.histories(store)
        yield CatalogRecommender(
            recommender, workbench, store, bitmaps, link, metadata, reading, cache, histories, users.changes
        )
    finally:
        await link.stop()
        await store.close()


@asynccontextmanager
async def _followed_catalog(
    recommender: SnapshotRecommender,
    workbench: Workbench,
    settings: Settings,
    store: CatalogStore,
    users: _Users,
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
        async with _told_of_fresh_items(
            recommender.fresh, users.news, place, lambda changes: keeper.learn(rows.add(changes))
        ):
            histories = users.histories(store)
            yield CatalogRecommender(
                recommender, workbench, store, bitmaps, keeper, metadata, reading, None, histories, users.changes
            )
    finally:
        await keeper.stop()
        await store.close()


@asynccontextmanager
async def _told_of_fresh_items(
    fresh: FreshState,
    erasures: ErasureNews,
    place: KeeperPlace | None,
    listener: Callable[[Sequence[FreshChange]], None] | None = None,
) -> AsyncIterator[None]:
    """Have ``fresh`` and ``erasures`` follow what the instance's keeper, where there is one, tells of."""
    if place is None:
        yield
        return
    link = KeeperLink(place.socket, fresh.snapshot_id, BitmapCache(), slot=place.slot)
    news = FreshNewsReader(fresh, listener)
    _subscribe(link, news, erasures, place)
    link.start()
    try:
        await asyncio.gather(news.wait(), erasures.wait())
        yield
    finally:
        await link.stop()


def _subscribe(link: KeeperLink, news: FreshNewsReader, erasures: ErasureNews, place: KeeperPlace) -> None:
    for topic, hear in {**place.topics, fresh_codec.TOPIC: news.hear, keeper_erasures.TOPIC: erasures.hear}.items():
        link.subscribe(topic, hear)


def _catalog_settings_of(settings: Settings) -> CatalogSettings:
    return CatalogSettings(
        max_staleness_seconds=settings.catalog_max_staleness_ms / 1_000,
        wait_seconds=settings.catalog_wait_ms / 1_000,
        metadata_ttl_seconds=settings.catalog_ttl_ms / 1_000,
    )


async def _connected(store: CatalogStore, snapshot: Snapshot) -> None:
    """Look one item up, so that the first callers, who would go without metadata, do not wait for a connection."""
    with suppress(AnnserveError):  # They go without it then, and filters say why.
        await store.select([snapshot.items.id(0)])


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
