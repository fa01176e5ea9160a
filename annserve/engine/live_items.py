"""The items that can be recommended at one moment: a snapshot's, and what came and went since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from pyroaring import BitMap

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.search.candidates import kept
from annserve.search.delta import Delta
from annserve.search.live_space import AnySpace, LiveSpace
from annserve.search.points import Points
from annserve.search.restriction import Restriction
from annserve.snapshot.snapshot import Snapshot

_SORTED_MAX = 4_096
"""So few allowed rows are put in order of popularity themselves."""
_STRETCH = 4_096


class LiveItems:
    """The items of a snapshot, nothing having changed. Immutable; one answer is made from one of these."""

    versions: tuple[int, ...] = ()
    """A number that no other content has; none for the snapshot's own."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.row_count = len(snapshot.items)
        """Of the snapshot: items that it does not have are given rows from here on."""
        self.affinity: AnySpace = snapshot.affinity
        self.likeness: AnySpace = snapshot.likeness

    def __len__(self) -> int:
        return self.row_count

    def row(self, item_id: str, /) -> int | None:
        """Return the row of an item, None for one that is not there."""
        return self._snapshot.items.row(item_id)

    def rows(self, item_ids: Iterable[str]) -> Rows:
        """Return the rows of the items that are there, in the order given."""
        rows = map(self.row, item_ids)
        return np.array([row for row in rows if row is not None], dtype=np.int64)

    def ids(self, rows: Rows) -> list[str]:
        """Return the ids of rows that belong to an item, be it gone."""
        return self._snapshot.items.ids(rows)

    def present(self, rows: Rows) -> Rows:
        """Return those of ``rows`` whose items are there."""
        return rows

    @property
    def fresh_rows(self) -> Rows:
        """The rows of items that the snapshot does not have."""
        return np.empty(0, np.int64)

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of items that are there."""
        return self._snapshot.item_vectors.take(rows, axis=0)

    def popularity(self, rows: Rows) -> Scores:
        """Return the popularity priors of items that are there."""
        return self._snapshot.popularity[rows]

    def counts(self, restriction: Restriction | None, excluded: Rows) -> tuple[int, int]:
        """Return how many items ``restriction`` allows, and how many of those ``excluded`` (no repeats) leaves."""
        if restriction is None:
            return self.row_count, self.row_count - excluded.size
        return len(restriction), len(restriction) - restriction.count_of(excluded.tolist())

    def all_in(self, bitmap: BitMap) -> bool:
        """Return whether all items are in ``bitmap``."""
        return bitmap.range_cardinality(0, self.row_count) == self.row_count

    def most_popular(self, k: int, restriction: Restriction | None, excluded: Rows) -> Rows:
        """Return the ``k`` most popular of the allowed items, most popular first; ties by row."""
        if restriction is not None and len(restriction) <= _SORTED_MAX:
            allowed = restriction.rows
            ranked: Rows = allowed[np.argsort(-self._snapshot.popularity[allowed], kind="stable")]
            return ranked[~np.isin(ranked, excluded)][:k]
        unwanted = frozenset(excluded.tolist())
        popular_rows = self._snapshot.popular_rows
        # So many allowed rows are spread over the whole order, so the first stretches of it fill the page.
        places: list[int] = []
        for start in range(0, len(popular_rows), _STRETCH):
            stretch = popular_rows[start : start + _STRETCH]
            places += [start + place for place in kept(stretch, k - len(places), restriction, unwanted)]
            if len(places) == k:
                break
        return popular_rows[places]


class ChangedItems(LiveItems):
    """The items of a snapshot after some came, changed or went."""

    def __init__(
        self, snapshot: Snapshot, delta: Delta, rows: Mapping[str, int], ids: Mapping[int, str], version: int
    ) -> None:
        """Join the snapshot with a delta of its item vectors.

        Args:
            snapshot: The snapshot.
            delta: What has changed.
            rows: Of all items ever that the snapshot does not have; may grow, but not change.
            ids: The same the other way.
            version: Of this content.
        """
        super().__init__(snapshot)
        self.versions = (version,)
        self._delta = delta
        self._fresh_rows = rows
        self._fresh_ids = ids
        self._gone = delta.hidden - delta.bitmap
        affinity = Points.affinity(delta.vectors, delta.popularity)
        likeness = Points.likeness(delta.vectors, snapshot.likeness_exponent)
        self.affinity = LiveSpace(snapshot.affinity, delta, affinity)
        self.likeness = LiveSpace(snapshot.likeness, delta, likeness)

    def __len__(self) -> int:
        return len(self._delta)

    def row(self, item_id: str, /) -> int | None:
        """See `LiveItems`."""
        row = self._snapshot.items.row(item_id)
        if row is None:
            row = self._fresh_rows.get(item_id)
            return row if row is not None and row in self._delta.bitmap else None
        return None if row in self._gone else row

    def ids(self, rows: Rows) -> list[str]:
        """See `LiveItems`."""
        of_snapshot = self._snapshot.items.id
        return [of_snapshot(row) if row < self.row_count else self._fresh_ids[row] for row in rows.tolist()]

    def present(self, rows: Rows) -> Rows:
        """See `LiveItems`."""
        delta, count = self._delta, self.row_count
        there = [row in delta.bitmap or (row < count and row not in delta.hidden) for row in rows.tolist()]
        return rows[np.array(there, np.bool_)]

    @property
    def fresh_rows(self) -> Rows:
        """See `LiveItems`."""
        rows = self._delta.rows
        return rows[rows >= self.row_count]

    def vectors(self, rows: Rows) -> Vectors:
        """See `LiveItems`."""
        return self._of_each(rows, self._snapshot.item_vectors, self._delta.vectors)

    def popularity(self, rows: Rows) -> Scores:
        """See `LiveItems`."""
        return self._of_each(rows, self._snapshot.popularity, self._delta.popularity)

    def counts(self, restriction: Restriction | None, excluded: Rows) -> tuple[int, int]:
        """See `LiveItems`."""
        places, struck = self._delta.eligible(restriction, excluded)
        fresh_count = len(self._delta.rows if places is None else places)
        of_snapshot = self._delta.of_space(restriction)
        allowed, left = super().counts(of_snapshot, excluded[excluded < self.row_count])
        return allowed + fresh_count, left + fresh_count - len(struck)

    def all_in(self, bitmap: BitMap) -> bool:
        """See `LiveItems`."""
        missing = self.row_count - bitmap.range_cardinality(0, self.row_count)
        # Rows that are missing are those of items that are gone, or an item is missing.
        gone = len(self._gone) - self._gone.intersection_cardinality(bitmap)
        return missing == gone and self._delta.bitmap.issubset(bitmap)

    def most_popular(self, k: int, restriction: Restriction | None, excluded: Rows) -> Rows:
        """See `LiveItems`."""
        delta = self._delta
        of_snapshot = super().most_popular(k, delta.of_space(restriction), excluded)
        places, struck = delta.eligible(restriction, excluded)
        fresh_places = np.arange(len(delta.rows)) if places is None else places
        fresh = delta.rows[np.setdiff1d(fresh_places, struck, assume_unique=True)]
        rows = np.concatenate([of_snapshot, fresh])
        return rows[np.lexsort((rows, -self.popularity(rows)))][:k]

    def _of_each(self, rows: Rows, old: Vectors, new: Vectors) -> Vectors:
        found, places = self._delta.find(rows)
        if not len(found):
            return old[rows]
        values: Vectors = old[np.where(rows < self.row_count, rows, 0)]
        values[found] = new[places]
        return values
