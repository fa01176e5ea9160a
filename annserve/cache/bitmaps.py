"""Which rows pass each leaf of the filters in use, as compressed bitmaps that changes of the catalogue keep true.

Leaves are kept, not filters: a combination never seen before is answered from the leaves it shares with others. A leaf
over 1 M items takes at most 128 KiB, whatever passes.
"""

from __future__ import annotations

import itertools
import math
import os
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cachetools import Cache, LRUCache
from pyroaring import BitMap

from annserve.domain.filter import Equals, In, Leaf, Range

BYTES_MAX = 64 << 20
_OVERHEAD_BYTES = 1024
"""About what a leaf, its key and its entry take beside the bitmap."""
_ACCOUNT_EVERY = 1024


class _Versions:
    """Numbers that no other process counts through: answers made under a version are shared between processes."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def next(self) -> int:
        return next(self._numbers)

    def _begin(self) -> None:
        self._numbers = itertools.count(secrets.randbits(62))


next_version = _Versions().next
"""Returns a number that nothing else has been called, here or in another process."""


@dataclass(slots=True, kw_only=True, eq=False)
class LeafBitmap:
    """The rows that pass one leaf. It changes in place: use it on the event loop; copy what outlasts a step."""

    leaf: Leaf | None
    """None for the leaf that every item of the catalogue passes."""
    bitmap: BitMap
    read_at: float
    """Monotonic seconds: when the query that filled it was sent."""
    version: int = field(default_factory=next_version)
    """Grows with every flip and rebuild, and no two contents share one; replicas have it from their original."""
    used_at: float = -math.inf
    """Monotonic seconds: when a request last asked for it."""
    has_gaps: bool = False
    """Whether changes since it was read may not have been told to it."""


class BitmapCache:
    """The bitmaps of the leaves used last, bounded in bytes, for the rows of one snapshot. One event loop uses it."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        """Keep about ``bytes_max`` bytes of leaves; the bitmap of `present` comes on top."""
        self._leaves: LRUCache[Leaf, LeafBitmap] = LRUCache(bytes_max, getsizeof=_size_bytes)
        self.present: LeafBitmap | None = None
        """The rows of the items that are in the catalogue; None while that is not known."""
        self.synced_at = -math.inf
        """Monotonic seconds: all that the store did up to then is in every bitmap; -inf when changes do not arrive."""
        self.stale = False
        """Whether something keeps the bitmaps from following the store."""

    def __len__(self) -> int:
        return len(self._leaves)

    @property
    def size_bytes(self) -> int:
        """An estimate of the bytes the leaves take."""
        return int(self._leaves.currsize)

    def get(self, leaf: Leaf) -> LeafBitmap | None:
        """Return the bitmap of ``leaf``, which counts as a use of it; None when it is not here."""
        try:
            found = self._leaves[leaf]  # Its `get` looks twice.
        except KeyError:
            return None
        found.used_at = time.monotonic()
        return found

    def peek(self, leaf: Leaf | None) -> LeafBitmap | None:
        """Return the bitmap of ``leaf``, or of None that of `present`, without counting it as a use."""
        if leaf is None:
            return self.present
        try:
            # `LRUCache` remembers uses in its own __getitem__; that of its base only reads.
            return Cache.__getitem__(self._leaves, leaf)
        except KeyError:
            return None

    def put(self, bitmap: LeafBitmap) -> None:
        """Keep ``bitmap`` in the place of the one its leaf had; leaves used longest ago give way."""
        if bitmap.leaf is None:
            self.present = bitmap
        elif _size_bytes(bitmap) <= self._leaves.maxsize:
            self._leaves[bitmap.leaf] = bitmap
        else:
            self.drop(bitmap.leaf)

    def flip(self, leaf: Leaf | None, row: int, passes: bool, version: int | None = None) -> bool:
        """Make ``row`` pass ``leaf`` or not, if the leaf is here, and return whether that changed anything.

        A replica says which ``version`` the change made of the original.
        """
        found = self.peek(leaf)
        if found is None or (row in found.bitmap) == passes:
            return False
        if passes:
            found.bitmap.add(row)
        else:
            found.bitmap.discard(row)
        found.version = next_version() if version is None else version
        if passes and len(found.bitmap) % _ACCOUNT_EVERY == 0:
            self.put(found)  # It has grown since its size was taken.
        return True

    def drop(self, leaf: Leaf) -> None:
        """Forget ``leaf``."""
        self._leaves.pop(leaf, None)

    def clear(self) -> None:
        """Forget every leaf, and how fresh they were; `present` stays until it is read anew.

        Without it, items that are not in the catalogue would be let through meanwhile.
        """
        self._leaves.clear()
        if self.present is not None:
            self.present.has_gaps = True
        self.synced_at = -math.inf

    def leaves(self) -> Sequence[Leaf]:
        """Return the leaves that are here, in no order."""
        return tuple(self._leaves)

    def age_seconds(self, bitmap: LeafBitmap, now: float) -> float:
        """Return how far ``bitmap`` may be behind the store at ``now``, in monotonic seconds.

        One that is not, or no longer, kept here is told of no changes: it is as old as what was read.
        """
        is_told = self.peek(bitmap.leaf) is bitmap and not bitmap.has_gaps
        return now - max(bitmap.read_at, self.synced_at if is_told else -math.inf)


def _size_bytes(bitmap: LeafBitmap) -> int:
    statistics = bitmap.bitmap.get_statistics()
    return (
        _OVERHEAD_BYTES
        + statistics["n_bytes_array_containers"]
        + statistics["n_bytes_run_containers"]
        + statistics["n_bytes_bitset_containers"]
        + _leaf_bytes(bitmap.leaf)
    )


def _leaf_bytes(leaf: Leaf | None) -> int:
    """Return what the values of ``leaf`` take: a list of long texts is larger than most bitmaps."""
    match leaf:
        case In(_, values):
            return sum(map(sys.getsizeof, values))
        case Equals(_, value):
            return sys.getsizeof(value)
        case Range(_, minimum, maximum):
            return sys.getsizeof(minimum) + sys.getsizeof(maximum)
        case _:
            return 0
