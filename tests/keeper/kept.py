"""A keeper over a twin, and when it has nothing left to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from catalog_twin import CatalogTwin, Rows

from annserve.cache.bitmaps import BitmapCache
from annserve.keeper.keeper import Keeper
from annserve.keeper.settings import KeeperSettings

QUICK = KeeperSettings(retry_seconds=0.0)


@dataclass(kw_only=True)
class Kept:
    """A keeper at work."""

    twin: CatalogTwin
    rows: Rows
    bitmaps: BitmapCache
    keeper: Keeper

    async def settled(self) -> None:
        """Return when every change is told and nothing is being read."""
        await self.until(
            lambda: (
                bool(self.twin.streams)
                and not self.twin.streams[-1].lost
                and self.twin.streams[-1].drained_at == len(self.twin.log)
                and not self.twin.reading
                and not self.keeper._builds._under_way
                and self.bitmaps.present is not None
            )
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0)

    def assert_true(self) -> None:
        """Compare every bitmap with a fresh evaluation."""
        for leaf in (None, *self.bitmaps.leaves()):
            found = self.bitmaps.peek(leaf)
            assert found is not None
            assert set(found.bitmap) == self.twin.rows_passing(leaf, self.rows), leaf


@asynccontextmanager
async def kept(
    twin: CatalogTwin,
    rows: Rows | None = None,
    settings: KeeperSettings = QUICK,
    listeners: Sequence[Callable[[Sequence[str]], None]] = (),
    lost_listeners: Sequence[Callable[[], None]] = (),
) -> AsyncIterator[Kept]:
    rows = Rows.numbered(8) if rows is None else rows
    bitmaps = BitmapCache()
    keeper = Keeper(twin, rows, bitmaps, settings, listeners, lost_listeners)
    keeper.start()
    try:
        yield Kept(twin=twin, rows=rows, bitmaps=bitmaps, keeper=keeper)
    finally:
        await keeper.stop()
