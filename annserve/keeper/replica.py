"""A worker's copy of what the keeper knows for its snapshot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from pyroaring import BitMap

from annserve.cache.bitmaps import BitmapCache, LeafBitmap
from annserve.domain.filter import Leaf
from annserve.keeper.frames import FLIP, Header
from annserve.keeper.leaf_codec import decode_leaf
from annserve.keeper.pace import Pace

_FLIPS_A_STEP = 32
_UNKNOWN = (-math.inf, True, True)


class Replica:
    """Does to a `BitmapCache` what happened to the keeper's.

    What is known when the keeper comes back is kept, and called stale, until it has been read again or is given up:
    `caught_up` says when.
    """

    def __init__(self, bitmaps: BitmapCache, slice_seconds: float) -> None:
        self._bitmaps = bitmaps
        self._slice_seconds = slice_seconds
        self._leaves: dict[int, Leaf | None] = {}
        """By the number that the keeper calls them by; what it does not know by number is told of no changes."""
        self._numbers: dict[Leaf | None, int] = {}
        self._state = _UNKNOWN
        self._behind = False
        self._reported_at = -math.inf

    def __contains__(self, leaf: Leaf | None) -> bool:
        return leaf in self._numbers and self._bitmaps.peek(leaf) is not None

    def lose(self) -> None:
        """Go on with what is known, which is told of no changes now."""
        self._leaves.clear()
        self._numbers.clear()
        self._bitmaps.stale = True

    def begin(self) -> Sequence[Leaf | None]:
        """Be told of changes again, and return the leaves that are known from before, those used last first."""
        self._state = _UNKNOWN
        self._reported_at = -math.inf
        known = [bitmap for leaf in (None, *self._bitmaps.leaves()) if (bitmap := self._bitmaps.peek(leaf)) is not None]
        self._behind = bool(known)
        known.sort(key=lambda bitmap: math.inf if bitmap.leaf is None else bitmap.used_at, reverse=True)
        return [bitmap.leaf for bitmap in known]

    def caught_up(self) -> None:
        """Give up what has not been read again."""
        for leaf in (None, *self._bitmaps.leaves()):
            if leaf not in self._numbers:
                self._drop(leaf)
        self._behind = False
        self._take_state()

    def put(self, header: Header, payload: bytes) -> None:
        """Take a whole bitmap."""
        leaf, number = decode_leaf(header["leaf"]), header["number"]
        bitmap = LeafBitmap(
            leaf=leaf,
            bitmap=BitMap.deserialize(payload),
            read_at=header["read_at"],
            version=header["version"],
            has_gaps=header["has_gaps"],
        )
        before = self._bitmaps.peek(leaf)
        if before is not None:
            bitmap.used_at = before.used_at
        self._leaves.pop(self._numbers.get(leaf, -1), None)
        self._leaves[number] = leaf
        self._numbers[leaf] = number
        self._bitmaps.put(bitmap)

    async def flip(self, payload: bytes) -> None:
        """Turn bits over, in the order in which they turned over at the keeper's."""
        pace = Pace(self._slice_seconds)
        flips = FLIP.iter_unpack(payload)
        while step := list(itertools.islice(flips, _FLIPS_A_STEP)):
            for number, row_and_passes, version in step:
                if number in self._leaves:
                    row, passes = divmod(row_and_passes, 2)
                    self._bitmaps.flip(self._leaves[number], row, bool(passes), version)
            await pace.breathe()

    def drop(self, number: int) -> None:
        """Forget a bitmap that is told of no changes any more."""
        if number in self._leaves:
            leaf = self._leaves.pop(number)
            del self._numbers[leaf]
            self._drop(leaf)

    def hear(self, synced_at: float | None, stale: bool, has_gaps: bool) -> None:
        """Learn how far the keeper's bitmaps follow the store."""
        self._state = (-math.inf if synced_at is None else synced_at, stale, has_gaps)
        if not self._behind:
            self._take_state()

    def uses(self) -> Sequence[int]:
        """Return the numbers of the leaves that were used since the last call."""
        found = [
            (number, bitmap.used_at)
            for leaf, number in self._numbers.items()
            if leaf is not None and (bitmap := self._bitmaps.peek(leaf)) is not None
        ]
        used = [number for number, used_at in found if used_at > self._reported_at]
        self._reported_at = max([self._reported_at, *(used_at for _, used_at in found)])
        return used

    def _drop(self, leaf: Leaf | None) -> None:
        if leaf is None:
            # Until it is read anew, it is better than letting every item through.
            if self._bitmaps.present is not None:
                self._bitmaps.present.has_gaps = True
        else:
            self._bitmaps.drop(leaf)

    def _take_state(self) -> None:
        self._bitmaps.synced_at, self._bitmaps.stale, has_gaps = self._state
        if self._bitmaps.present is not None and None in self._numbers:
            self._bitmaps.present.has_gaps = has_gaps
