"""The rows of a snapshot's items and, from the end of those on, of items that came since."""

from __future__ import annotations

from collections.abc import Iterable

from annserve.domain.fresh import FreshChange
from annserve.keeper.builds import IdRows


class FreshRows:
    """Implements `IdRows` over those of a snapshot; the same rows as `engine.fresh_state.FreshState` gives."""

    def __init__(self, items: IdRows) -> None:
        self._items = items
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        """Return how many the snapshot has."""
        return len(self._items)

    def row(self, id_: str, /) -> int | None:
        """Return the row of an item, None for one that was never heard of."""
        row = self._items.row(id_)
        return self._rows.get(id_) if row is None else row

    def add(self, changes: Iterable[FreshChange]) -> list[str]:
        """Give the items of ``changes`` rows, and return the ids of those that had none or another."""
        added = []
        for change in changes:
            row = len(self._items) + change.number
            if self._items.row(change.item_id) is None and self._rows.get(change.item_id) != row:
                self._rows[change.item_id] = row
                added.append(change.item_id)
        return added
