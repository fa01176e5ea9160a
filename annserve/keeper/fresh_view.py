"""Fresh items as one snapshot sees them: which it has by now, and where in its space the others lie."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from annserve.domain.arrays import Vectors
from annserve.domain.errors import InvalidArgumentError
from annserve.domain.fresh import FreshChange, StoredItem
from annserve.domain.model import FoldInConstants
from annserve.search.points import Points
from annserve.snapshot import layout
from annserve.snapshot.files import map_array
from annserve.snapshot.ids import IdIndex
from annserve.snapshot.manifest import read_manifest
from annserve.snapshot.soundness import gram_matrix

if TYPE_CHECKING:
    from annserve.training.fold_in import FoldIn

_RIDGE = 1e-6
"""Of the mean of the Gram matrix's diagonal: as little as makes the system solvable."""

_logger = logging.getLogger(__name__)


class FreshView:
    """What the snapshot in one folder makes of fresh items. Maps its files and changes none; threads may share it.

    Raises:
        SnapshotRefusedError, OSError: the folder is no snapshot.
    """

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        self.snapshot_id = manifest.snapshot_id
        self._built_ms = manifest.created_time.timestamp() * 1_000
        self._constants = manifest.constants.fold_in
        self._likeness_exponent = manifest.constants.likeness_exponent
        self._items = IdIndex(folder / layout.ITEM_IDS)
        self._users = IdIndex(folder / layout.USER_IDS)
        self._user_vectors: Vectors = map_array(folder / layout.USER_VECTORS)
        self.dimension = int(map_array(folder / layout.ITEM_VECTORS).shape[1])

    def changes(self, items: Sequence[StoredItem]) -> list[FreshChange]:
        """Return what becomes of each of ``items``, in order.

        The first item with users in place of a vector costs a pass over all user vectors.
        """
        return [self._change(item) for item in items]

    def has_learnt(self, stored: StoredItem) -> bool:
        """Return whether the item was there when the snapshot was built, which has it.

        A deletion is never learnt: the next snapshot may have the item again.
        """
        if stored.item.is_deleted or stored.written_ms > self._built_ms:
            return False
        return self._items.row(stored.item.item_id) is not None

    def liked_vector(self, user_ids: Sequence[str]) -> Vectors | None:
        """Return the vector, ``(d,)``, of an item that these users liked; None if none of them has a vector.

        It is the items' half of an alternation, as `training.fold_in` is the users'.
        """
        rows = [row for user_id in user_ids if (row := self._users.row(user_id)) is not None]
        liking = self._user_vectors[np.unique(np.array(rows, np.int64))]
        liking = liking[liking.any(axis=1)]
        if not len(liking):
            return None
        try:
            vector = self._fold_in.user_vector(liking)
        except InvalidArgumentError:  # The users' vectors and the constants do not allow of one.
            return None
        return vector if self.has_place_for(vector) else None

    def has_place_for(self, vector: Vectors) -> bool:
        """Return whether ``vector`` can be among the snapshot's in both of its spaces."""
        if vector.shape != (self.dimension,):
            return False
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            if not 0 < np.dot(vector, vector) < np.inf:
                return False
        try:
            Points.affinity(vector[np.newaxis], np.zeros(1, np.float32))
            Points.likeness(vector[np.newaxis], self._likeness_exponent)
        except InvalidArgumentError:
            return False
        return True

    @cached_property
    def _fold_in(self) -> FoldIn:
        gram = gram_matrix(self._user_vectors)
        constants = self._constants
        if constants is None or not constants.gram_weight:
            # Users are projected, as by an SVD; then an item is whatever their vectors explain best.
            ridge = _RIDGE * float(np.trace(gram)) / self.dimension
            constants = FoldInConstants(
                gram_weight=1.0, item_weight=0.0, target=1.0, regularization=ridge, regularization_per_item=0.0
            )
        # It brings scipy, which would make a keeper's start a fifth longer, and most have no item to fold in.
        from annserve.training.fold_in import FoldIn  # noqa: PLC0415

        return FoldIn(gram, constants)

    def _change(self, stored: StoredItem) -> FreshChange:
        item = stored.item
        as_built = FreshChange(item_id=item.item_id, number=stored.number)
        if self.has_learnt(stored):
            return as_built
        if item.is_deleted:
            return replace(as_built, is_deleted=True)
        vector = item.vector if item.snapshot_id == self.snapshot_id else None
        if vector is None and item.liked_by_user_ids:
            vector = self.liked_vector(item.liked_by_user_ids)
        if vector is None or not self.has_place_for(vector):
            _logger.warning("snapshot %s has no place for the fresh item %s", self.snapshot_id, item.item_id)
            return as_built
        return replace(as_built, vector=vector, popularity=item.popularity)
