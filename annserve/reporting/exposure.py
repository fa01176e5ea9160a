"""How widely a placement spreads what it shows over the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt


class ItemIds(Protocol):
    """The ids of a catalogue: `snapshot.ids.IdIndex` is one."""

    def __len__(self) -> int: ...

    def row(self, id_: str) -> int | None:
        """Return the row of ``id_``; None where it is not here."""
        ...


def exposure_counts(shown: Mapping[str, int], catalog: ItemIds | None) -> npt.NDArray[np.int64]:
    """Return how often each item was shown: of ``catalog``, shown or not, or without one of what was shown at all."""
    if catalog is None:
        return np.fromiter(shown.values(), np.int64, len(shown))
    counts = np.zeros(len(catalog), np.int64)
    for item_id, count in shown.items():
        row = catalog.row(item_id)
        if row is not None:
            counts[row] = count
    return counts


def gini(counts: npt.NDArray[np.int64]) -> float | None:
    """Return the Gini coefficient of ``counts``: 0 when all are equal, towards 1 when one item has everything.

    None without any exposure.
    """
    total = float(counts.sum())
    if total == 0:
        return None
    n = len(counts)
    ranks = np.arange(1, n + 1)
    return float(2 * (ranks @ np.sort(counts)) / (n * total) - (n + 1) / n)
