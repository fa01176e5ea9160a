"""Following the store of fresh items, and telling each worker what they are to its snapshot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from annserve.cache.bitmaps import next_version
from annserve.domain.errors import AnnserveError, CatalogUnavailableError
from annserve.domain.fresh import FreshBatch, FreshChange, FreshStore, StoredItem
from annserve.keeper.frames import Header
from annserve.keeper.fresh_codec import TOPIC, FreshNews, encode_news
from annserve.keeper.fresh_view import FreshView
from annserve.keeper.hub import KeeperHub

RETRY_SECONDS = 0.25

_SNAPSHOTS_MIN = 2
"""The live one, and the one that a roll-back leads to."""

_logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class _Told:
    """What the workers of one snapshot know."""

    view: FreshView
    changes: dict[str, FreshChange] = field(default_factory=dict)
    version: int = 0
    is_ready: bool = False
    """Whether they have been told all there was when it was opened."""


class FreshFollower:
    """Tells the workers of ``hub`` of the items in ``store``. One event loop uses it.

    Workers of a snapshot are told nothing before the store has been read once and the snapshot has been opened.
    """

    def __init__(
        self,
        store: FreshStore,
        hub: KeeperHub,
        open_view: Callable[[str], FreshView],
        history: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Follow ``store``.

        Args:
            store: Where they are; what is not needed any more is dropped from it.
            hub: Where workers are told.
            open_view: Gives the view of a snapshot by its id, in a thread.
            history: Gives the ids of the snapshots that were live, latest first, in a thread.
        """
        self._store = store
        self._hub = hub
        self._open_view = open_view
        self._history = history
        self._items: dict[str, StoredItem] | None = None
        """The last word on each item, as far as read; None before."""
        self._told: dict[str, _Told] = {}
        self._turn = asyncio.Lock()
        """Held by whoever turns items into changes, so that workers hear of them in order."""
        self._tasks: set[asyncio.Task[None]] = set()
        hub.on_hello(self._greet)

    @property
    def added_ids(self) -> frozenset[str]:
        """The ids of the fresh items that have a vector, as far as read: what each worker scans beside its graph."""
        return frozenset(id_ for id_, stored in (self._items or {}).items() if not stored.item.is_deleted)

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._begin(self._keep())

    async def stop(self) -> None:
        """End all work."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _keep(self) -> None:
        is_told = False
        while True:
            try:
                async with aclosing(self._store.follow()) as batches:
                    async for batch in batches:
                        await self._take(batch)
                        if is_told:
                            _logger.info("fresh items are followed again")
                        is_told = False
            except CatalogUnavailableError as error:
                # Once, not at every attempt: an outage may last, and the log is read then.
                if not is_told:
                    _logger.warning("fresh items are not followed: %s", error)
                is_told = True
            except Exception:
                _logger.exception("following fresh items failed")
            await asyncio.sleep(RETRY_SECONDS)

    async def _take(self, batch: FreshBatch) -> None:
        news = {stored.item.item_id: stored for stored in batch.items}
        async with self._turn:
            self._items = news if batch.is_all or self._items is None else self._items | news
            here = self._hub.snapshot_ids
            self._told = {snapshot_id: told for snapshot_id, told in self._told.items() if snapshot_id in here}
            for told in self._told.values():
                await self._tell(told, batch.items, is_all=batch.is_all or not told.is_ready)

    async def _open(self, snapshot_id: str) -> None:
        async with self._turn:
            try:
                told = _Told(view=await asyncio.to_thread(self._open_view, snapshot_id))
            except Exception:
                # Its worker comes again, and then it is tried again.
                _logger.exception("snapshot %s is told of no fresh items", snapshot_id)
                return
            self._told[snapshot_id] = told
            if self._items is not None:
                await self._tell(told, list(self._items.values()), is_all=True)
        try:
            await self.tidy()
        except (AnnserveError, OSError) as error:
            _logger.warning("what snapshots have learnt of fresh items is not dropped: %s", error)

    async def tidy(self) -> None:
        """Drop from the store what the live snapshot and the one before have both learnt.

        Raises:
            SnapshotRefusedError, OSError: one of them cannot be opened.
            CatalogUnavailableError: the store cannot be written.
        """
        history = (await asyncio.to_thread(self._history))[:_SNAPSHOTS_MIN]
        if len(history) < _SNAPSHOTS_MIN or not self._items:
            return
        views = [await asyncio.to_thread(self._open_view, snapshot_id) for snapshot_id in history]
        learnt = [stored for stored in self._items.values() if all(view.has_learnt(stored) for view in views)]
        await self._store.forget(learnt)
        if learnt:
            _logger.info("%d fresh items are part of the snapshots by now", len(learnt))

    async def _tell(self, told: _Told, items: Sequence[StoredItem], *, is_all: bool) -> None:
        changes = await asyncio.to_thread(told.view.changes, items)
        # In one step, as workers are greeted between steps.
        if is_all:
            told.changes.clear()
        told.changes.update((change.item_id, change) for change in changes)
        told.version = next_version()
        told.is_ready = True
        self._hub.add_rows(told.view.snapshot_id, changes)
        news = FreshNews(changes=changes, version=told.version, is_all=is_all)
        self._hub.broadcast(TOPIC, *encode_news(news), told.view.snapshot_id)

    def _greet(self, snapshot_id: str) -> Iterable[tuple[str, Header, bytes]]:
        told = self._told.get(snapshot_id)
        if told is None:
            self._begin(self._open(snapshot_id))
            return ()
        if not told.is_ready:
            return ()
        changes = list(told.changes.values())
        self._hub.add_rows(snapshot_id, changes)
        return [(TOPIC, *encode_news(FreshNews(changes=changes, version=told.version, is_all=True)))]

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
