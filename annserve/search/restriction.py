"""The rows a request may return, and what each space has learned about them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from annserve.domain.arrays import Rows, Scores
from annserve.domain.errors import InvalidArgumentError
from annserve.search.bands import Level
from annserve.search.points import Points

GATHERED_BYTES_MAX = 1 << 28
"""What the rows that are kept side by side may take, of all restrictions in this process together."""
ROW_MAX = (1 << 32) - 1
"""The largest row that a bitmap can hold."""
_LEARNED_CHANGE_MAX = 100
"""The planner's choices hold while no more than one in so many rows was added or taken away."""


class Restriction:
    """The allowed rows of a request. Keep it for the next request with the same rows: it gets faster by use."""

    def __init__(self, rows: npt.ArrayLike | BitMap, count: int) -> None:
        """Allow ``rows``, in any order and repeated or not, of a space of ``count`` rows.

        A bitmap is kept, not copied: it must not change any more.

        Raises:
            InvalidArgumentError: a row outside 0 to ``count - 1``.
        """
        if isinstance(rows, BitMap):
            self.bitmap = rows
            in_range = not rows or rows.max() < count
        else:
            given = np.asarray(rows, dtype=np.int64).reshape(-1)
            in_range = not given.size or 0 <= int(given.min()) <= int(given.max()) < count
            self.bitmap = BitMap(given.astype(np.uint32)) if in_range else BitMap()
        if not in_range:
            raise InvalidArgumentError.of("restriction", f"rows must be 0 to {count - 1}")
        self.count = count
        self.whole = self.bitmap
        """`bitmap` and the rows from `count` on that are allowed too: those of items that came since."""
        self.selections: dict[object, Selection] = {}
        """One for each space that has searched under this restriction."""
        self._without: tuple[BitMap, Restriction] | None = None
        self._places: tuple[Rows, Rows] | None = None

    @classmethod
    def over(cls, bitmap: BitMap, count: int) -> Restriction:
        """Allow ``bitmap``, of whose rows those from ``count`` on are in `whole` only; it must not change any more."""
        if not bitmap or bitmap.max() < count:
            return cls(bitmap, count)
        inside = bitmap.copy()
        inside.remove_range(count, ROW_MAX + 1)
        restriction = cls(inside, count)
        restriction.whole = bitmap
        return restriction

    def __len__(self) -> int:
        return len(self.bitmap)

    @cached_property
    def rows(self) -> Rows:
        """``(len(self),)``: the allowed rows, ascending."""
        return np.frombuffer(self.bitmap.to_array(), np.uint32).astype(np.int64)

    @cached_property
    def ceilings(self) -> Scores:
        """``(count,)``: what a score may be at most: anything for the allowed rows, minus infinity for the others."""
        ceilings = np.full(self.count, -np.inf, np.float32)
        ceilings[self.rows] = np.inf
        return ceilings

    def succeeded_by(self, bitmap: BitMap) -> Restriction:
        """Return the restriction to ``bitmap``, which differs from this one in few rows, with what was learned here."""
        successor = Restriction.over(bitmap, self.count)
        if self._without is not None:
            # No bitmap is this one: the successor finds its own rows, and what was learned without the hidden ones.
            successor._without = BitMap(), self._without[1]  # noqa: SLF001  (of its own class)
        if abs(len(successor) - len(self)) <= len(self) // _LEARNED_CHANGE_MAX:
            for space, known in self.selections.items():
                successor.selections[space] = Selection(kept_shares=known.kept_shares, levels=known.levels)
        return successor

    def without(self, hidden: BitMap) -> Restriction:
        """Return the restriction to the allowed rows of the space that are not ``hidden``.

        What it learns is kept here, also for when other rows are hidden. ``hidden`` is known by its identity.
        """
        known = self._without
        if known is not None and known[0] is hidden:
            return known[1]
        allowed = self.bitmap - hidden
        left = (self if known is None else known[1]).succeeded_by(allowed)
        self._without = hidden, left
        return left

    def places(self, rows: Rows, bitmap: BitMap) -> Rows:
        """Return where in ``rows``, which ascend and are those of ``bitmap``, the allowed ones are.

        The places are kept for the next who asks with the same array.
        """
        known = self._places
        if known is not None and known[0] is rows:
            return known[1]
        allowed = np.frombuffer((bitmap & self.whole).to_array(), np.uint32)
        found = np.searchsorted(rows, allowed)
        self._places = rows, found
        return found

    def positions(self, rows: Rows) -> Rows:
        """Return where in `rows` those of ``rows`` stand that are allowed at all."""
        places = np.minimum(np.searchsorted(self.rows, rows), max(len(self.rows) - 1, 0))
        return places[self.rows[places] == rows] if len(self.rows) else places[:0]

    def count_of(self, rows: Iterable[int]) -> int:
        """Return how many of ``rows``, which are not repeated, are allowed."""
        allowed = self.bitmap
        return sum(row in allowed for row in rows)


@dataclass(slots=True, kw_only=True, eq=False)
class Selection:
    """What one space knows about one restriction, or about having none.

    Threads may share it: every field is only ever replaced by an equal or a better value.
    """

    kept_shares: npt.NDArray[np.float64]
    """For each norm band, the share of its rows that is allowed."""
    levels: dict[int, Level | None] = field(default_factory=dict)
    """The planner's choices so far, by the number of survivors needed."""
    plans: dict[tuple[int, int, int, bool], Sequence[Level]] = field(default_factory=dict)
    """The levels that the planner chose so far: by k, how many rows are excluded, the list asked for, and whether the
    allowed rows are gathered."""
    gathered: Points | None = None
    """The allowed rows side by side, once they have been scanned twice, while there is room."""
    scanned: bool = False

    def gather(self, points: Points, rows: Rows) -> Points | None:
        """Return the gathered points when another scan of ``rows`` makes them worth keeping, else None."""
        gathered = self.gathered
        if gathered is None and self.scanned and _size_bytes(points, rows) <= GATHERED_BYTES_MAX:
            gathered = points.gather(rows, by_column=True)
        self.scanned = True
        if gathered is not None:
            _GATHERED.keep(self, gathered)
        return gathered


class _Gathered:
    """The selections whose rows are gathered, bounded in bytes: those scanned longest ago give way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sizes: OrderedDict[Selection, int] = OrderedDict()
        self._bytes = 0

    def keep(self, selection: Selection, gathered: Points) -> None:
        """Note that ``selection`` was scanned just now, over what it has ``gathered``."""
        with self._lock:
            if selection in self._sizes:
                self._sizes.move_to_end(selection)
                return
            selection.gathered = gathered
            self._sizes[selection] = size_bytes = gathered.vectors.nbytes
            self._bytes += size_bytes
            while self._bytes > GATHERED_BYTES_MAX:
                oldest, size_bytes = self._sizes.popitem(last=False)
                oldest.gathered = None
                self._bytes -= size_bytes


_GATHERED = _Gathered()


def _size_bytes(points: Points, rows: Rows) -> int:
    return 4 * points.dimension * len(rows)
