"""What came and went since a snapshot, applied change by change: the same in every process that is told the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pyroaring import BitMap

from annserve.domain.arrays import Rows
from annserve.domain.fresh import FreshChange
from annserve.engine.live_items import ChangedItems, LiveItems
from annserve.search.delta import Delta
from annserve.search.restriction import ROW_MAX
from annserve.snapshot.snapshot import Snapshot


class FreshState:
    """Holds the items of one snapshot as they are now. One thread applies changes; any thread reads `items`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._row_count = len(snapshot.items)
        self._nothing = Delta.empty(self._row_count, snapshot.item_vectors.shape[1])
        self._delta = self._nothing
        # An item's row never changes, so all versions of the items share these.
        self._rows: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self.items = LiveItems(snapshot)
        """As they are now: to be taken once for everything that must agree. Replaced as a whole, never changed."""

    @property
    def snapshot_id(self) -> str:
        """The snapshot that the items are of, and what came since."""
        return self._snapshot.id

    def begin(self, changes: Sequence[FreshChange], version: int) -> None:
        """Forget what was applied before, and apply all there is; see `apply`. Readers see one or the other."""
        self._apply(self._nothing, changes, version)

    def apply(self, changes: Sequence[FreshChange], version: int) -> None:
        """Apply ``changes`` in their order, all at once; ``version`` is what `items` will be called then."""
        self._apply(self._delta, changes, version)

    def _apply(self, before: Delta, changes: Sequence[FreshChange], version: int) -> None:
        by_row = {self._row(change): change for change in changes}
        upserted = {row: change for row, change in by_row.items() if change.vector is not None}
        deleted = BitMap(row for row, change in by_row.items() if change.vector is None and change.is_deleted)
        restored = BitMap(row for row, change in by_row.items() if change.vector is None and not change.is_deleted)
        rows: Rows = np.fromiter(upserted, np.int64, len(upserted))
        vectors = np.array([change.vector for change in upserted.values()], np.float32)
        popularity = np.array([change.popularity for change in upserted.values()], np.float32)
        shape = (len(rows), before.vectors.shape[1])
        delta = before.changed(rows, vectors.reshape(shape), popularity, deleted=deleted, restored=restored)
        self._delta = delta
        if self._rows or delta.rows.size or delta.hidden:
            self.items = ChangedItems(self._snapshot, delta, self._rows, self._ids, version)
        else:
            self.items = LiveItems(self._snapshot)

    def _row(self, change: FreshChange) -> int:
        row = self._snapshot.items.row(change.item_id)
        if row is None:
            row = self._row_count + change.number
            if row > ROW_MAX:
                raise ValueError(f"the number {change.number} of a fresh item is too large")
            self._ids[row] = change.item_id
            self._rows[change.item_id] = row
        return row
