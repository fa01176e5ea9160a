"""Reading leaves from the store: each once, however many ask, and true to what changed meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from pyroaring import BitMap

from annserve.cache.bitmaps import BitmapCache, LeafBitmap
from annserve.domain.catalog import CatalogStore
from annserve.domain.deadline import Deadline
from annserve.domain.errors import AnnserveError, CatalogUnavailableError
from annserve.domain.filter import Leaf
from annserve.keeper.counters import KeeperCounters
from annserve.keeper.pace import Pace
from annserve.keeper.settings import KeeperSettings

_IDS_A_STEP = 64
_logger = logging.getLogger(__name__)


class IdRows(Protocol):
    """Knows the rows of a snapshot's items; `snapshot.ids.IdIndex` does."""

    def __len__(self) -> int: ...

    def row(self, id_: str, /) -> int | None:
        """Return the row of an item, None for one that is not in the snapshot."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class _Build:
    leaf: Leaf | None
    outcome: asyncio.Future[LeafBitmap]
    reading: bool = False
    """Whether its query is sent; what changed before that, the query finds."""
    followed: bool = True
    """Whether it is told of every change since then, and so may be kept."""
    passing: BitMap = field(default_factory=BitMap)
    """Rows that changed since and pass now, whatever the query finds; `failing`: and do not."""
    failing: BitMap = field(default_factory=BitMap)


class Builds:
    """The leaves being read. One event loop uses it."""

    def __init__(
        self,
        store: CatalogStore,
        items: IdRows,
        bitmaps: BitmapCache,
        settings: KeeperSettings,
        counters: KeeperCounters,
    ) -> None:
        self._store = store
        self._items = items
        self._bitmaps = bitmaps
        self._settings = settings
        self._counters = counters
        self._slots = asyncio.Semaphore(settings.builds_at_once)
        self._slots_behind = asyncio.Semaphore(max(1, settings.builds_at_once // 2))
        self._turn = asyncio.Lock()
        """Held by the one build that turns ids into rows, so that several hold the event loop no longer than one."""
        self._under_way: dict[Leaf | None, _Build] = {}
        self._tasks: set[asyncio.Task[LeafBitmap]] = set()
        self._closed = False
        self.leaves_followed = True
        """Whether leaves that begin to be read are told of changes; if not, they reach their waiters and no cache."""

    def __contains__(self, leaf: Leaf | None) -> bool:
        return leaf in self._under_way

    def begin(self, leaf: Leaf | None, *, behind: bool = False) -> asyncio.Future[LeafBitmap]:
        """Return a future, the caller's own, of the rows that pass ``leaf``: those of the build under way or a new one.

        It raises what the store raises, and CatalogUnavailableError once closed. An error is not remembered. A new
        build for which no request waits goes ``behind``: such builds leave half of the places to others.
        """
        build = self._under_way.get(leaf)
        if build is None:
            build = _Build(leaf=leaf, outcome=asyncio.get_running_loop().create_future())
            build.outcome.add_done_callback(_heard)  # All that waited may have left.
            if self._closed:
                build.outcome.set_exception(_closing())
            elif leaf is not None and len(self._under_way) >= self._settings.builds_waiting_max:
                build.outcome.set_exception(CatalogUnavailableError("too many new conditions wait to be read"))
            else:
                self._under_way[leaf] = build
                task = asyncio.create_task(self._run(build, behind))
                self._tasks.add(task)
                task.add_done_callback(lambda done: self._settle(build, done))
        waiter = asyncio.shield(build.outcome)
        waiter.add_done_callback(_heard)  # Nobody may be waiting, and then an error is no event.
        return waiter

    def followed(self) -> Sequence[Leaf]:
        """Return the leaves that must be told of changes."""
        return [
            leaf for leaf, build in self._under_way.items() if leaf is not None and build.reading and build.followed
        ]

    def flip(self, leaf: Leaf | None, row: int, passes: bool) -> None:
        """Say that ``row`` has changed, and passes ``leaf`` now or not."""
        build = self._under_way.get(leaf)
        if build is not None and build.reading:
            added, removed = (build.passing, build.failing) if passes else (build.failing, build.passing)
            added.add(row)
            removed.discard(row)

    def unfollow(self, *, present: bool) -> Sequence[Leaf]:
        """Let nothing into the cache that is being read now, and return the leaves; all items only if ``present``.

        Waiters get it all the same: it was true when it was read. Who asks from now on gets a new build.
        """
        left = [leaf for leaf, build in self._under_way.items() if build.reading and (present or leaf is not None)]
        for leaf in left:
            self._under_way.pop(leaf).followed = False
        return [leaf for leaf in left if leaf is not None]

    async def close(self) -> None:
        """End what is under way; waiters get CatalogUnavailableError."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, build: _Build, behind: bool) -> LeafBitmap:
        try:
            async with self._slots_behind if behind else nullcontext(), self._slots:
                read_at = time.monotonic()
                build.reading = True
                build.followed = build.leaf is None or self.leaves_followed
                bitmap, unknown = await self._read(build.leaf)
                self._counters.builds += 1
                self._counters.build_seconds += time.monotonic() - read_at
            bitmap |= build.passing
            bitmap -= build.failing
            bitmap.run_optimize()
            built = LeafBitmap(leaf=build.leaf, bitmap=bitmap, read_at=read_at)
            if build.followed:
                self._keep(built, unknown)
            return built
        finally:
            # In the same step as keeping it, so that no change falls in between.
            if self._under_way.get(build.leaf) is build:
                del self._under_way[build.leaf]

    async def _read(self, leaf: Leaf | None) -> tuple[BitMap, int]:
        """Return the rows that pass, and how many items pass that have no row."""
        bitmap, unknown = BitMap(), 0
        row_of = self._items.row
        pace = Pace(self._settings.slice_seconds)
        async for ids in self._store.matching(leaf, Deadline.after(self._settings.build_seconds)):
            async with self._turn:
                pace.resume()
                for start in range(0, len(ids), _IDS_A_STEP):
                    step = ids[start : start + _IDS_A_STEP]
                    rows = [row for id_ in step if (row := row_of(id_)) is not None]
                    bitmap.update(rows)
                    unknown += len(step) - len(rows)
                    await pace.breathe()
        return bitmap, unknown

    def _keep(self, built: LeafBitmap, unknown: int) -> None:
        before = self._bitmaps.peek(built.leaf)
        if before is not None:
            built.used_at = before.used_at
        self._bitmaps.put(built)
        if built.leaf is None:
            self._counters.items_without_row = unknown
            self._counters.rows_without_item = len(self._items) - built.bitmap.range_cardinality(0, len(self._items))

    def _settle(self, build: _Build, task: asyncio.Task[LeafBitmap]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            build.outcome.set_exception(_closing())
        elif error := task.exception():
            self._counters.build_failures += 1
            if not isinstance(error, AnnserveError):
                _logger.error("reading %s failed", build.leaf or "all items", exc_info=error)
            build.outcome.set_exception(error)
        else:
            build.outcome.set_result(task.result())


def _closing() -> CatalogUnavailableError:
    return CatalogUnavailableError("the server is stopping")


def _heard(future: asyncio.Future[LeafBitmap]) -> None:
    if not future.cancelled():
        future.exception()
