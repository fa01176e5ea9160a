"""What has changed of a space's items since it was built: few enough to be searched one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyroaring import BitMap

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.search.restriction import Restriction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delta:
    """Items that came, changed or went since a space of ``count`` rows was built. Immutable; a change makes another.

    A row belongs to an item for good: an item that has changed keeps the row it has in the space, where it is hidden
    from then on, and a new one has a row from ``count`` on. So what is known by row, such as bitmaps, stays true.
    """

    count: int
    everything: Restriction
    """All rows of the space; what is learned without the hidden ones is kept in it from one delta to the next."""
    rows: Rows
    """``(m,)``: those of the items that came or changed, ascending."""
    bitmap: BitMap
    """The same."""
    vectors: Vectors
    """``(m, d)``."""
    popularity: Scores
    """``(m,)``."""
    hidden: BitMap
    """Rows of the space whose items have changed or gone."""

    @classmethod
    def empty(cls, count: int, dimension: int) -> Delta:
        """Return the delta of a space of ``count`` rows where nothing has changed."""
        return cls(
            count=count,
            everything=Restriction(BitMap(range(count)), count),
            rows=np.empty(0, np.int64),
            bitmap=BitMap(),
            vectors=np.empty((0, dimension), np.float32),
            popularity=np.empty(0, np.float32),
            hidden=BitMap(),
        )

    def changed(
        self, rows: Rows, vectors: Vectors, popularity: Scores, *, deleted: BitMap, restored: BitMap | None = None
    ) -> Delta:
        """Return the delta after some more changes, in each of which another item is concerned.

        Args:
            rows: Of items that are there now, without repeats, in any order.
            vectors: Theirs, ``(len(rows), d)``, finite and not zero.
            popularity: Theirs, ``(len(rows),)``.
            deleted: Rows of items that are gone, whether they were there or not.
            restored: Rows of items that are again as they were when the space was built.
        """
        upserted, restored = BitMap(rows.astype(np.uint32)), BitMap() if restored is None else restored
        hidden = (self.hidden | _below(upserted | deleted, self.count)) - restored
        stay = np.flatnonzero(~np.isin(self.rows, np.concatenate([rows, _array(deleted), _array(restored)])))
        all_rows = np.concatenate([self.rows[stay], rows])
        order = np.argsort(all_rows)
        return Delta(
            count=self.count,
            everything=self.everything,
            rows=all_rows[order],
            bitmap=(self.bitmap - deleted - restored) | upserted,
            vectors=np.concatenate([self.vectors[stay], vectors])[order],
            popularity=np.concatenate([self.popularity[stay], popularity])[order],
            # Restrictions know what is hidden by identity.
            hidden=self.hidden if hidden == self.hidden else hidden,
        )

    def __len__(self) -> int:
        """Return how many items there are now."""
        return self.count - len(self.hidden) + len(self.rows)

    def of_space(self, restriction: Restriction | None) -> Restriction | None:
        """Return what may be returned of the space itself under ``restriction``; None for all of it."""
        if not self.hidden:
            return restriction
        return (self.everything if restriction is None else restriction).without(self.hidden)

    def places(self, restriction: Restriction | None) -> Rows | None:
        """Return where in `rows` those are that ``restriction`` allows; None for all of them."""
        return None if restriction is None else restriction.places(self.rows, self.bitmap)

    def find(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return the places in ``rows`` of those that are in `rows`, and where they are there."""
        places = np.searchsorted(self.rows, rows)
        found = (
            np.flatnonzero(self.rows[np.minimum(places, len(self.rows) - 1)] == rows) if len(self.rows) else places[:0]
        )
        return found, places[found]

    def eligible(self, restriction: Restriction | None, excluded: Rows | None) -> tuple[Rows | None, Rows]:
        """Return `places`, and those of them where ``excluded`` rows are, without repeats."""
        places = self.places(restriction)
        if excluded is None or not excluded.size:
            return places, np.empty(0, np.int64)
        struck = np.unique(self.find(excluded)[1])
        return places, struck if places is None else struck[np.isin(struck, places, assume_unique=True)]


def _below(bitmap: BitMap, count: int) -> BitMap:
    below = bitmap.copy()
    below.remove_range(count, 1 << 32)
    return below


def _array(bitmap: BitMap) -> Rows:
    return np.frombuffer(bitmap.to_array(), np.uint32).astype(np.int64)
