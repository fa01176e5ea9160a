"""What the keeper knows for one snapshot, and the telling of every change of it to those who have a copy.

Each bitmap that somebody has a copy of has a number, and a bitmap read anew has a new one. All subscribers are told the
same of flips and drops, in the same bytes; a number that a subscriber does not know means nothing to it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from annserve.cache.bitmaps import BYTES_MAX, LeafBitmap
from annserve.domain.catalog import CatalogStore
from annserve.domain.errors import CatalogUnavailableError
from annserve.domain.filter import Leaf
from annserve.domain.fresh import FreshChange
from annserve.keeper.builds import IdRows
from annserve.keeper.frames import FLIP, Frame
from annserve.keeper.fresh_rows import FreshRows
from annserve.keeper.keeper import Keeper
from annserve.keeper.leaf_codec import encode_leaf
from annserve.keeper.observed_bitmaps import ObservedBitmaps
from annserve.keeper.settings import KeeperSettings


class Subscriber(Protocol):
    """Somebody who has copies."""

    def send(self, frames: bytes) -> None:
        """Take encoded frames, in this order, without waiting."""
        ...

    def wants(self, leaf: Leaf | None) -> bool:
        """Return whether a bitmap of ``leaf`` that was read anew shall be sent."""
        ...

    def sent(self, leaf: Leaf | None) -> None:
        """Note that the bitmap of ``leaf`` has been sent."""
        ...

    def dropped(self, leaf: Leaf | None) -> None:
        """Note that what was sent of ``leaf`` is told of no changes any more."""
        ...


class Publication:
    """The bitmaps of one snapshot, the keeper that fills them, and their subscribers. One event loop uses it."""

    def __init__(
        self, store: CatalogStore | None, items: IdRows, settings: KeeperSettings, bytes_max: int = BYTES_MAX
    ) -> None:
        """Publish what ``store`` says of ``items``; without a store there are no bitmaps."""
        self.subscribers: dict[Subscriber, None] = {}
        self._numbers: dict[Leaf | None, int] = {}
        self._leaves: dict[int, Leaf | None] = {}
        self._next_number = 0
        self._frames: list[bytes] = []
        self._flips = bytearray()
        """Flips after the last of ``_frames``."""
        self._state_told: tuple[float, bool, bool] | None = None
        self._flush_due = False
        self.bitmaps = ObservedBitmaps(self, bytes_max)
        self._rows = FreshRows(items)
        self.keeper = None
        if store is not None:
            self.keeper = Keeper(store, self._rows, self.bitmaps, settings, [self._changed], [self._lost])

    def start(self) -> None:
        """Begin to follow the catalogue, on the running event loop."""
        if self.keeper is not None:
            self.keeper.start()

    async def stop(self) -> None:
        """End all work."""
        if self.keeper is not None:
            await self.keeper.stop()

    def add_rows(self, changes: Iterable[FreshChange]) -> None:
        """Give fresh items rows, and read which bitmaps they are in."""
        added = self._rows.add(changes)
        if self.keeper is not None:
            self.keeper.learn(added)

    def build(self, leaf: Leaf | None, since: float) -> asyncio.Future[LeafBitmap]:
        """Return the rows that pass ``leaf``; see `Keeper.build`."""
        if self.keeper is not None:
            return self.keeper.build(leaf, since)
        nothing: asyncio.Future[LeafBitmap] = asyncio.get_running_loop().create_future()
        nothing.set_exception(CatalogUnavailableError("there is none"))
        return nothing

    def known(self, leaf: Leaf | None) -> LeafBitmap | None:
        """Return the bitmap of ``leaf``, which counts as a use of it."""
        return self.bitmaps.present if leaf is None else self.bitmaps.get(leaf)

    def used(self, numbers: Sequence[int]) -> Sequence[Leaf]:
        """Count a use of the leaves of these numbers, except those that have another by now, and return them."""
        leaves = [leaf for number in numbers if (leaf := self._leaves.get(number)) is not None]
        for leaf in leaves:
            self.bitmaps.get(leaf)
        return leaves

    def send_copy(self, subscriber: Subscriber, leaf: Leaf | None) -> None:
        """Send the bitmap of ``leaf``, which is here, as it is now; every change of it is told from now on."""
        self._send_frames()
        subscriber.send(self._copy(leaf))
        subscriber.sent(leaf)

    def state(self) -> Frame:
        """Return how far the bitmaps follow the store."""
        self._state_told = self._state()
        synced_at, stale, has_gaps = self._state_told
        synced = None if math.isinf(synced_at) else synced_at
        return Frame({"do": "state", "synced_at": synced, "stale": stale, "has_gaps": has_gaps})

    def beat(self) -> None:
        """Tell all subscribers something."""
        self._state_told = None
        self.flush()

    def tell(self, frame: bytes) -> None:
        """Tell all subscribers ``frame``, after everything before it."""
        if self.subscribers:
            self._seal()
            self._frames.append(frame)
            self.state_changed()

    def flush(self) -> None:
        """Tell all that has happened."""
        self._flush_due = False
        self._seal()
        if self._state() != self._state_told:
            self._frames.append(self.state().encoded())
        self._send_frames()

    def replaced(self, leaf: Leaf | None) -> None:
        """Note that ``leaf`` has a bitmap that is no continuation of the one it had."""
        old = self._numbers.pop(leaf, None)
        interested = [subscriber for subscriber in self.subscribers if subscriber.wants(leaf)]
        if interested:
            # Not how far it follows the store: that is said of the new one, to who has it.
            self._send_frames()
            copy = self._copy(leaf)
            for subscriber in interested:
                subscriber.send(copy)
                subscriber.sent(leaf)
        if old is not None:
            # Whoever has the new one does not know the old one any more.
            self._forget(leaf, old, interested)
        self.state_changed()

    def flipped(self, leaf: Leaf | None, row: int, passes: bool, version: int) -> None:
        """Note that ``row`` passes ``leaf`` now or not."""
        number = self._numbers.get(leaf)
        if number is not None and self.subscribers:
            self._flips += FLIP.pack(number, 2 * row + passes, version)
            self.state_changed()

    def dropped(self, leaf: Leaf | None) -> None:
        """Note that ``leaf`` is told of no changes any more."""
        number = self._numbers.pop(leaf, None)
        if number is not None:
            self._forget(leaf, number, ())

    def state_changed(self) -> None:
        """Note that it became known how far the bitmaps follow the store."""
        if self.subscribers and not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def _state(self) -> tuple[float, bool, bool]:
        present = self.bitmaps.present
        return self.bitmaps.synced_at, self.bitmaps.stale, present is not None and present.has_gaps

    def _forget(self, leaf: Leaf | None, number: int, renewed: Sequence[Subscriber]) -> None:
        del self._leaves[number]
        for subscriber in self.subscribers:
            if subscriber not in renewed:
                subscriber.dropped(leaf)
        self.tell(Frame({"do": "drop", "number": number}).encoded())

    def _copy(self, leaf: Leaf | None) -> bytes:
        bitmap = self.bitmaps.peek(leaf)
        assert bitmap is not None  # noqa: S101  (callers have just seen it)
        number = self._numbers.get(leaf)
        if number is None:
            number = self._numbers[leaf] = self._next_number
            self._leaves[number] = leaf
            self._next_number += 1
        header = {"do": "put", "leaf": encode_leaf(leaf), "number": number}
        times = {"read_at": bitmap.read_at, "version": bitmap.version, "has_gaps": bitmap.has_gaps}
        return Frame(header | times, bitmap.bitmap.serialize()).encoded()

    def _send_frames(self) -> None:
        self._seal()
        if self._frames:
            told = b"".join(self._frames)
            self._frames.clear()
            for subscriber in tuple(self.subscribers):
                subscriber.send(told)

    def _seal(self) -> None:
        if self._flips:
            self._frames.append(Frame({"do": "flip"}, bytes(self._flips)).encoded())
            self._flips.clear()

    def _changed(self, item_ids: Sequence[str]) -> None:
        self.tell(Frame({"do": "changed", "item_ids": item_ids}).encoded())

    def _lost(self) -> None:
        self.tell(Frame({"do": "lost"}).encoded())
