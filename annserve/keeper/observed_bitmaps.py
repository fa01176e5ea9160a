"""A cache of bitmaps that says what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from cachetools import LRUCache

from annserve.cache.bitmaps import BitmapCache, LeafBitmap
from annserve.domain.filter import Leaf


class BitmapObserver(Protocol):
    """Is told of everything, at once and in order."""

    def replaced(self, leaf: Leaf | None) -> None:
        """Note that ``leaf`` has a bitmap that is no continuation of the one it had, if it had one."""
        ...

    def flipped(self, leaf: Leaf | None, row: int, passes: bool, version: int) -> None:
        """Note that ``row`` passes ``leaf`` now or not, and which version that made."""
        ...

    def dropped(self, leaf: Leaf | None) -> None:
        """Note that the bitmap of ``leaf``, if there was one, is told of no changes any more."""
        ...

    def state_changed(self) -> None:
        """Note that `synced_at` or `stale` was set."""
        ...


class ObservedBitmaps(BitmapCache):
    """Calls an observer after each change of itself."""

    def __init__(self, observer: BitmapObserver, bytes_max: int) -> None:
        """Keep about ``bytes_max`` bytes of leaves; see `BitmapCache`."""
        self._observer = observer
        self._synced_at = -math.inf
        self._stale = False
        super().__init__(bytes_max)
        self._leaves = _Leaves(bytes_max, self._leaves.getsizeof, observer.dropped)

    @property
    def synced_at(self) -> float:
        """See `BitmapCache`."""
        return self._synced_at

    @synced_at.setter
    def synced_at(self, synced_at: float) -> None:
        self._synced_at = synced_at
        self._observer.state_changed()

    @property
    def stale(self) -> bool:
        """See `BitmapCache`."""
        return self._stale

    @stale.setter
    def stale(self, stale: bool) -> None:
        self._stale = stale
        self._observer.state_changed()

    def put(self, bitmap: LeafBitmap) -> None:
        """See `BitmapCache`."""
        known = self.peek(bitmap.leaf) is bitmap  # It comes once more when it has grown.
        super().put(bitmap)
        if not known and self.peek(bitmap.leaf) is bitmap:
            self._observer.replaced(bitmap.leaf)

    def flip(self, leaf: Leaf | None, row: int, passes: bool, version: int | None = None) -> bool:
        """See `BitmapCache`."""
        flipped = super().flip(leaf, row, passes, version)
        if flipped and (found := self.peek(leaf)) is not None:
            self._observer.flipped(leaf, row, passes, found.version)
        return flipped

    def drop(self, leaf: Leaf) -> None:
        """See `BitmapCache`."""
        super().drop(leaf)
        self._observer.dropped(leaf)

    def clear(self) -> None:
        """See `BitmapCache`."""
        leaves = self.leaves()
        super().clear()
        for leaf in leaves:
            self._observer.dropped(leaf)


class _Leaves(LRUCache[Leaf, LeafBitmap]):
    """Says which leaf gives way."""

    def __init__(self, maxsize: float, getsizeof: Callable[[LeafBitmap], float], gone: Callable[[Leaf], None]) -> None:
        super().__init__(maxsize, getsizeof)
        self._gone = gone

    def popitem(self) -> tuple[Leaf, LeafBitmap]:
        leaf, bitmap = super().popitem()
        self._gone(leaf)
        return leaf, bitmap
