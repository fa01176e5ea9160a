"""What is similar to items that were asked about together: the graph is asked once for all of them.

It answers what most questions are, about one item that is there, with nothing to leave out but that item. It has no
ways of its own: what `SnapshotRecommender` would do with such a question is done for many at a time, and whatever
might take another turn is left to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from annserve.engine.query_vectors import seed_units
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import LOOP_US
from annserve.search.index import Others, SpaceIndex

TOGETHER_MAX: Final = 32


def _always() -> bool:
    return True


class SimilarTogether:
    """Answers such questions on the event loop, so many at a time as it may be held up for."""

    def __init__(self, recommender: SnapshotRecommender, is_open: Callable[[], bool] = _always) -> None:
        """Answer from the snapshot of ``recommender``, while ``is_open`` says that no item is to be left out."""
        self._snapshot = recommender.snapshot
        self._fresh = recommender.fresh
        self._is_open = is_open

    @property
    def snapshot_id(self) -> str:
        """The snapshot every answer comes from."""
        return self._snapshot.id

    @property
    def selectivity(self) -> float:
        """The share of items that are eligible: all but the one that is asked about."""
        return (len(self._snapshot.items) - 1) / len(self._snapshot.items)

    def at_most(self, k: int) -> int:
        """Return how many questions for ``k`` items may be asked at once; 0 where each is a search of its own."""
        us = self._snapshot.likeness.others_us(k)
        return min(math.floor(LOOP_US / us), TOGETHER_MAX)

    def search(self, item_ids: Sequence[str], k: int) -> list[Others | None]:
        """Return the ``k`` rows most like each item, and their scores; None for one that has to be asked by itself."""
        items, index = self._fresh.items, self._snapshot.likeness
        if items.likeness is not index or not self._is_open():
            return [None] * len(item_ids)
        rows = [items.row(item_id) for item_id in item_ids]
        known = [row for row in rows if row is not None]
        others = self._others(index, known, k) if known else None
        if others is None:
            return [None] * len(item_ids)
        if len(known) == len(rows):
            return list(others)
        found = iter(others)
        return [None if row is None else next(found) for row in rows]

    def _others(self, index: SpaceIndex, rows: list[int], k: int) -> list[Others] | None:
        return index.search_others(seed_units(self._snapshot.item_vectors[rows]), rows, k)

    def ids(self, rows: Sequence[int]) -> list[str]:
        """Return the ids of rows that were found."""
        return self._snapshot.items.ids(rows)
