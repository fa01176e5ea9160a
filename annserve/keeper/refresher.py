"""Freshness by age, where the store does not tell of changes."""

from __future__ import annotations

import asyncio
import time

from annserve.cache.bitmaps import BitmapCache, LeafBitmap
from annserve.domain.filter import Leaf
from annserve.keeper.builds import Builds
from annserve.keeper.settings import KeeperSettings


class Refresher:
    """Reads bitmaps again when they are old and were used since, and drops those that were not.

    What cannot be read is kept as it was, and the cache says that it is stale.
    """

    def __init__(self, bitmaps: BitmapCache, builds: Builds, settings: KeeperSettings) -> None:
        self._bitmaps = bitmaps
        self._builds = builds
        self._ttl_seconds = settings.ttl_seconds
        self._failing: set[Leaf | None] = set()

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            for leaf in (None, *self._bitmaps.leaves()):
                if leaf not in self._builds:
                    self._look_at(leaf)
            self._failing.intersection_update((None, *self._bitmaps.leaves()))
            self._bitmaps.stale = bool(self._failing)
            await asyncio.sleep(min(1.0, self._ttl_seconds / 10))

    def _look_at(self, leaf: Leaf | None) -> None:
        bitmap = self._bitmaps.peek(leaf)
        if bitmap is None:
            if leaf is None:
                self._read(leaf)
        elif time.monotonic() - bitmap.read_at >= self._ttl_seconds:
            if leaf is not None and bitmap.used_at < bitmap.read_at:
                self._bitmaps.drop(leaf)
            else:
                self._read(leaf)

    def _read(self, leaf: Leaf | None) -> None:
        def note(outcome: asyncio.Future[LeafBitmap]) -> None:
            if outcome.cancelled() or outcome.exception() is not None:
                self._failing.add(leaf)
            else:
                self._failing.discard(leaf)

        self._builds.begin(leaf, behind=True).add_done_callback(note)
