"""What training hands to the snapshot: vectors of items and users in one space, and what serving needs with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from annserve.domain.arrays import Rows, Vectors


class Space(str, Enum):
    """What a score compares."""

    AFFINITY = "affinity"
    """Inner product of a user and an item, plus the popularity prior."""

    LIKENESS = "likeness"
    """Unit seed vector times item vector, divided by the item's norm raised to `Model.likeness_exponent`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldInConstants:
    """The ridge system whose solution is a user's vector, from her ``n`` recent item vectors ``q`` and weights ``w``.

    ``(gram_weight * QᵀQ + item_weight * Σ w q qᵀ + (regularization + regularization_per_item * n) I) p
    = target * Σ w q``. For `implicit` with (alpha, reg): 1, alpha - 1, reg, 0 and alpha.
    """

    gram_weight: float
    item_weight: float
    target: float
    regularization: float
    regularization_per_item: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Histories:
    """The items each user is known to have had, most recent last, as one compressed sparse row matrix.

    User ``u`` had ``item_rows[indptr[u]:indptr[u + 1]]``.
    """

    indptr: npt.NDArray[np.int64]
    item_rows: npt.NDArray[np.int32]

    def of(self, user_row: int) -> Rows:
        """Return the item rows of one user, most recent last, shape ``(h,)``."""
        return self.item_rows[self.indptr[user_row] : self.indptr[user_row + 1]].astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A trained or imported set of vectors. Row ``i`` of a matrix belongs to entry ``i`` of its ids."""

    item_ids: Sequence[str]
    item_vectors: Vectors
    """``(n, d)``, finite, no zero rows."""
    user_ids: Sequence[str]
    user_vectors: Vectors
    """``(m, d)``, finite; ``m`` may be 0."""
    popularity: npt.NDArray[np.float32]
    """``(n,)``: the prior, ``log1p`` of an item's recent popularity, at least 0."""
    popularity_weight: float
    """What the prior counts for unless a request says otherwise: the last dimension of an affinity query."""
    likeness_exponent: float
    """The power, 0.5 to 1, of the item's norm that divides likeness."""
    recent_items_max: int
    """How many of a user's recent items fold-in looks at."""
    fold_in: FoldInConstants | None = None
    """None for imported vectors without constants: such a snapshot serves no `recent_items`."""
    histories: Histories | None = None
    trainer: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Everything that is needed to train the same again; JSON values only."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """What evaluation measured, if it was run; JSON values only."""
