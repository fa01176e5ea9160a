"""What is similar to items that were asked about together: the graph is asked once for all of them.

It answers what most questions are, about one item that is there, with nothing to leave out but that item. It has no
ways of its own: what `SnapshotRecommender` would do with such a question is done for many at a time, and whatever
might take another turn is left to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from annserve.engine.query_vectors import seed_units
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import LOOP_US
from annserve.search.index import Others

TOGETHER_MAX: Final = 32


def _always() -> bool:
    return True


class SimilarTogether:
    """Answers such questions on the event loop, so many at a time as it may be held up for."""

    def __init__(self, recommender: SnapshotRecommender, is_open: Callable[[], bool] = _always) -> None:
        """Answer from the items of ``recommender``, while ``is_open`` says that none is to be left out."""
        self._fresh = recommender.fresh
        self._is_open = is_open

    @property
    def snapshot_id(self) -> str:
        """The snapshot every answer comes from."""
        return self._fresh.snapshot_id

    @property
    def versions(self) -> tuple[int, ...]:
        """What is equal as long as the items are the same."""
        return self._fresh.items.versions

    @property
    def is_open(self) -> bool:
        """Whether no item has to be left out: else nothing is found."""
        return self._is_open()

    @property
    def selectivity(self) -> float:
        """The share of items that are eligible: all but the one that is asked about."""
        count = len(self._fresh.items)
        return (count - 1) / count

    def at_most(self, k: int) -> int:
        """Return how many questions for ``k`` items may be asked at once; 0 where each is a search of its own."""
        return min(math.floor(LOOP_US / self._fresh.items.likeness.others_us(k)), TOGETHER_MAX)

    def search(self, item_ids: Sequence[str], k: int) -> Sequence[Others | None]:
        """Return the ``k`` rows most like each item, and their scores; None for one that has to be asked by itself."""
        nothing = [None] * len(item_ids)
        items = self._fresh.items
        rows = [items.row(item_id) for item_id in item_ids]
        known = [row for row in rows if row is not None]
        # Where much has changed it would hold up the loop.
        if not known or not self._is_open() or len(known) * items.likeness.others_us(k) > 2.0 * LOOP_US:
            return nothing
        others = items.likeness.search_others(seed_units(items.vectors(np.array(known))), known, k)
        if others is None or len(known) == len(rows):
            return nothing if others is None else others
        found = iter(others)
        return [None if row is None else next(found) for row in rows]

    def ids(self, rows: Sequence[int]) -> list[str]:
        """Return the ids of rows that were found."""
        return self._fresh.items.ids(np.array(rows))
