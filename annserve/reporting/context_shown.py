"""How like what was on screen is to what was shown beside it, by the bare item vectors of a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from annserve.domain.arrays import Vectors
from annserve.domain.events import Event
from annserve.reporting.exposure import ItemIds


def nothing_known(impressions: Sequence[Event]) -> list[float | None]:
    """Return None for each: there are no vectors to judge by."""
    return [None] * len(impressions)


class ContextShown:
    """Cosines of a snapshot's vectors. An item that came after it has none, and is left out."""

    def __init__(self, items: ItemIds, item_vectors: Vectors) -> None:
        self._items = items
        self._vectors = item_vectors

    def __call__(self, impressions: Sequence[Event]) -> list[float | None]:
        """Return the mean cosine of the shown items and the context items' mean unit vector, for each impression.

        None where none of one side has a vector, or the context's vectors cancel out.
        """
        contexts = self._mean_units([event.context_item_ids for event in impressions])
        shown = self._mean_units([event.item_ids for event in impressions])
        lengths = np.linalg.norm(contexts, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = np.einsum("ij,ij->i", contexts, shown) / lengths
        return [float(cosine) if np.isfinite(cosine) else None for cosine in cosines]

    def _mean_units(self, ids: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
        """Return the mean of each list's unit vectors, NaN where none is known, shape ``(len(ids), d)``."""
        rows = [self._items.row(item_id) for item_id in chain.from_iterable(ids)]
        owners = np.repeat(np.arange(len(ids)), [len(of_one) for of_one in ids])
        is_known = np.array([row is not None for row in rows], bool)
        vectors = self._vectors[[row for row in rows if row is not None]].astype(np.float64)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        sums = np.zeros((len(ids), self._vectors.shape[1]))
        np.add.at(sums, owners[is_known], units)
        counts = np.bincount(owners[is_known], minlength=len(ids))
        with np.errstate(invalid="ignore"):
            means: npt.NDArray[np.float64] = sums / counts[:, None]
        return means
