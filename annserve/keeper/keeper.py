"""Keeping what is known of the catalogue true, as long as the server runs."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence

from annserve.cache.bitmaps import BitmapCache, LeafBitmap
from annserve.catalog.evaluate import matches
from annserve.domain.catalog import (
    CatalogStore,
    Change,
    ChangesLostError,
    ChangesUnsupportedError,
    FreshnessMode,
)
from annserve.domain.deadline import Deadline
from annserve.domain.errors import AnnserveError, CatalogUnavailableError
from annserve.domain.filter import Leaf
from annserve.keeper.builds import Builds, IdRows
from annserve.keeper.counters import KeeperCounters
from annserve.keeper.pace import Pace
from annserve.keeper.refresher import Refresher
from annserve.keeper.settings import KeeperSettings

_IDS_A_READ = 1_000
_logger = logging.getLogger(__name__)


class Keeper:
    """Fills a `BitmapCache` from a store and follows the store's changes, or reads again by age if it tells of none.

    A bitmap in the cache has been told of every change since its query was sent. So it must have been read after the
    stream of changes began: with a new stream, everything is read anew.
    """

    def __init__(
        self,
        store: CatalogStore,
        items: IdRows,
        bitmaps: BitmapCache,
        settings: KeeperSettings | None = None,
        listeners: Sequence[Callable[[Sequence[str]], None]] = (),
        lost_listeners: Sequence[Callable[[], None]] = (),
    ) -> None:
        """Keep ``bitmaps`` over the rows of ``items``.

        Args:
            store: Where the items' metadata is.
            items: The rows of the snapshot.
            bitmaps: What to keep; written by nobody else.
            settings: How to go about it.
            listeners: Told the ids of items that changed as they arrive, before any bit flips.
            lost_listeners: Called when what was read of the store up to now cannot be kept up to date.
        """
        self._store = store
        self._items = items
        self._bitmaps = bitmaps
        self._settings = settings or KeeperSettings()
        self._listeners = listeners
        self._lost_listeners = lost_listeners
        self.counters = KeeperCounters()
        self.mode = FreshnessMode.STREAM
        """How changes become known, as far as the store has said."""
        self._builds = Builds(store, items, bitmaps, self._settings, self.counters)
        self._wanted: dict[Leaf, None] = {}
        """Leaves that were dropped and are read again as soon as it makes sense, those used last first."""
        self._backlog = 0
        """Changes since the store last said that there are no more."""
        self._evaluations = 0
        """How often they had to be judged."""
        self._learning: dict[str, None] = {}
        """Items that got a row after bitmaps were read, and of which nothing was heard since."""
        self._learner: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End all work; whoever waits for a build gets CatalogUnavailableError."""
        tasks = {task for task in (self._task, self._learner) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._builds.close()

    def build(self, leaf: Leaf | None, since: float = math.inf) -> asyncio.Future[LeafBitmap]:
        """Read the rows that pass ``leaf``, None for those of all items, and put them into the cache.

        What is there already, and known to have been so at ``since`` or later (monotonic seconds), is not read again.
        Equal leaves share one build, which goes on when its waiters leave; each caller has a future of its own.
        """
        kept = self._bitmaps.peek(leaf)
        if kept is not None and max(kept.read_at, self._bitmaps.synced_at) >= since:
            known: asyncio.Future[LeafBitmap] = asyncio.get_running_loop().create_future()
            known.set_result(kept)
            return known
        return self._builds.begin(leaf)

    def learn(self, item_ids: Sequence[str]) -> None:
        """Read in which bitmaps items are whose rows are known only now."""
        self._learning.update(dict.fromkeys(item_ids))
        if self._learning and self._learner is None:
            self._learner = asyncio.create_task(self._learn())
            self._learner.add_done_callback(self._learnt)

    async def _learn(self) -> None:
        while self._learning:
            item_ids = list(itertools.islice(self._learning, _IDS_A_READ))
            try:
                # A leaf that begins to be read from here on finds the rows by itself.
                for leaf in (None, *self._bitmaps.leaves(), *self._builds.followed()):
                    deadline = Deadline.after(self._settings.build_seconds)
                    passing = await self._store.select(item_ids, leaf, (), deadline)
                    for item_id in item_ids:
                        row = self._items.row(item_id)
                        # What changed meanwhile has been told to all leaves.
                        if row is not None and item_id in self._learning:
                            self._flip(leaf, row, item_id in passing)
            except AnnserveError as error:
                _logger.warning("what the catalogue says of fresh items is not known yet: %s", error)
                await asyncio.sleep(self._settings.retry_seconds)
            else:
                for item_id in item_ids:
                    self._learning.pop(item_id, None)

    def _learnt(self, learner: asyncio.Task[None]) -> None:
        self._learner = None
        if not learner.cancelled() and (error := learner.exception()) is not None:
            _logger.error("learning of fresh items failed", exc_info=error)

    async def _keep(self) -> None:
        while True:
            try:
                await self._stay_fresh()
            except ChangesLostError as error:
                _logger.warning("changes of the catalogue were lost, reading it anew: %s", error)
            except Exception:
                _logger.exception("following the catalogue failed, reading it anew")
            self._bitmaps.stale = True
            self.counters.resyncs += 1
            self._forget()
            await asyncio.sleep(self._settings.retry_seconds)

    async def _stay_fresh(self) -> None:
        changes = self._store.changes()
        try:
            await self._follow(changes)
        except ChangesUnsupportedError:
            _logger.info("the catalogue does not tell of changes: it is read every %g s", self._settings.ttl_seconds)
        finally:
            # Streams that hold a connection can be closed; the port asks for no more than an iterator.
            if aclose := getattr(changes, "aclose", None):
                await aclose()
        self.mode = FreshnessMode.TTL
        self._begin()
        await Refresher(self._bitmaps, self._builds, self._settings).run()

    async def _follow(self, changes: AsyncIterator[Sequence[Change]]) -> None:
        begun = False
        while True:
            batch = await self._next(changes)
            if batch is None:
                continue
            if not begun:
                begun = True
                self._begin()
            if batch:
                await self._apply(batch)
            else:
                self._catch_up()

    async def _next(self, changes: AsyncIterator[Sequence[Change]]) -> Sequence[Change] | None:
        """Return what the store tells next, None if it does not answer."""
        silence = asyncio.get_running_loop().call_later(self._settings.silence_seconds, self._mark_stale)
        try:
            return await anext(changes)
        except StopAsyncIteration:
            raise ChangesLostError("the stream ended") from None
        except CatalogUnavailableError:
            self._mark_stale()
            await asyncio.sleep(self._settings.retry_seconds)
            return None
        finally:
            silence.cancel()

    def _mark_stale(self) -> None:
        self._bitmaps.stale = True

    def _begin(self) -> None:
        """Read anew what was read before changes were followed."""
        self._forget()
        self._rebuild()

    async def _apply(self, batch: Sequence[Change]) -> None:
        self.counters.changes += len(batch)
        for listener in self._listeners:
            listener([change.item_id for change in batch])
        self._backlog += len(batch)
        self._evaluations += len(batch) * len(self._bitmaps)
        is_flood = self._backlog > self._settings.flood_changes or self._evaluations > self._settings.flood_evaluations
        if is_flood and self._builds.leaves_followed:
            self.counters.floods += 1
            _logger.warning("%d changes of the catalogue at once: leaves are dropped and read again", self._backlog)
            self._builds.leaves_followed = False
            self._forget_leaves()
        pace = Pace(self._settings.slice_seconds)
        for item_id, document in {change.item_id: change.document for change in batch}.items():
            self._learning.pop(item_id, None)
            row = self._items.row(item_id)
            if row is None:
                self.counters.unknown_items += 1
            else:
                exists = document is not None
                if self._flip(None, row, exists) and row < len(self._items):
                    self.counters.rows_without_item += -1 if exists else 1
                # A leaf that is not here yet will be read later than this change was made.
                for leaf in (*self._bitmaps.leaves(), *self._builds.followed()):
                    self._flip(leaf, row, document is not None and matches(leaf, document))
                    await pace.breathe()
            await pace.breathe()

    def _flip(self, leaf: Leaf | None, row: int, passes: bool) -> bool:
        self._builds.flip(leaf, row, passes)
        flipped = self._bitmaps.flip(leaf, row, passes)
        self.counters.flips += flipped
        return flipped

    def _catch_up(self) -> None:
        """Note that all changes up to now have been told, and do what had to wait for that."""
        self._backlog = self._evaluations = 0
        self._bitmaps.synced_at = time.monotonic()
        self._bitmaps.stale = False
        if not self._builds.leaves_followed:
            self._wanted.update(dict.fromkeys(self._builds.unfollow(present=False)))
            self._builds.leaves_followed = True
        self._rebuild()

    def _forget(self) -> None:
        self._learning.clear()  # Whatever is read from here on finds their rows by itself.
        self._forget_leaves()
        self._builds.unfollow(present=True)
        self._bitmaps.clear()
        for listener in self._lost_listeners:
            listener()

    def _forget_leaves(self) -> None:
        """Drop all leaves, and remember those worth reading again."""
        since = time.monotonic() - self._settings.recent_seconds
        kept = [bitmap for leaf in self._bitmaps.leaves() if (bitmap := self._bitmaps.peek(leaf)) is not None]
        for bitmap in sorted(kept, key=lambda bitmap: bitmap.used_at, reverse=True):
            if bitmap.leaf is not None:
                self._bitmaps.drop(bitmap.leaf)
                if bitmap.used_at >= since:
                    self._wanted[bitmap.leaf] = None
        self._wanted.update(dict.fromkeys(self._builds.unfollow(present=False)))

    def _rebuild(self) -> None:
        if self._bitmaps.present is None or self._bitmaps.present.has_gaps:
            self._builds.begin(None, behind=True)
        for leaf in itertools.islice(self._wanted, self._settings.rebuilds_max):
            self._builds.begin(leaf, behind=True)
        self._wanted.clear()
