"""Interactions gathered to one entry per user and item, in the order that fold-in, histories and splits need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from annserve.training.interactions import Interactions

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Every user-item pair once, ordered by user and, within a user, by the time of the last interaction.

    The arrays are parallel, ``(p,)``. Without times in the source, all times are 0 and the order is that of reading.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    strengths: npt.NDArray[np.float32]
    """The sum of the weights of the pair's interactions."""
    first_times: npt.NDArray[np.int64]
    last_times: npt.NDArray[np.int64]
    """Milliseconds since 1970-01-01 UTC."""
    now_ms: int
    """The moment that ages are counted from: the latest time of the source, or the split it was cut at."""

    def __len__(self) -> int:
        return len(self.users)

    @property
    def indptr(self) -> npt.NDArray[np.int64]:
        """Where each user's pairs begin, and the last end: ``(users + 1,)``."""
        return np.searchsorted(self.users, np.arange(len(self.user_ids) + 1)).astype(np.int64)

    @property
    def ages_days(self) -> npt.NDArray[np.float64]:
        """Days from the last interaction to `now_ms`."""
        return (self.now_ms - self.last_times) / DAY_MS

    def matrix(self, values: npt.ArrayLike | None = None) -> sp.csr_array:
        """Return ``(users, items)`` float32 with ``values`` (1 unless given) at the pairs."""
        data = np.ones(len(self), dtype=np.float32) if values is None else np.asarray(values, dtype=np.float32)
        shape = (len(self.user_ids), len(self.item_ids))
        return sp.csr_array((data, (self.users, self.items)), shape=shape)


def pairs_of(interactions: Interactions, *, before_ms: int | None = None) -> Pairs:
    """Return the pairs of ``interactions``, or of those before ``before_ms``.

    Ids keep their positions whatever the window, so that pairs of two windows of one source can be compared.
    """
    times = interactions.times if interactions.times is not None else np.zeros(len(interactions), dtype=np.int64)
    keep = np.ones(len(interactions), dtype=bool)
    if before_ms is not None:
        keep &= times < before_ms
    users, items, times = interactions.users[keep], interactions.items[keep], times[keep]
    weights = interactions.weights[keep]

    item_count = len(interactions.item_ids)
    codes = users.astype(np.int64) * item_count + items
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) != 0]) if len(order) else np.empty(0, dtype=np.int64)
    unique = codes[order][starts]
    first = np.minimum.reduceat(times[order], starts) if len(starts) else np.empty(0, dtype=np.int64)
    last = np.maximum.reduceat(times[order], starts) if len(starts) else np.empty(0, dtype=np.int64)
    strengths = np.add.reduceat(weights[order], starts) if len(starts) else np.empty(0, dtype=np.float32)
    pair_users, pair_items = unique // item_count, unique % item_count
    # Within a user the most recent comes last; of one basket, what is new to the user; then the order of reading.
    by_time = np.lexsort((order[starts], first, last, pair_users))
    latest = int(times.max()) if len(times) else 0
    return Pairs(
        user_ids=interactions.user_ids,
        item_ids=interactions.item_ids,
        users=pair_users[by_time].astype(np.int32),
        items=pair_items[by_time].astype(np.int32),
        strengths=strengths[by_time],
        first_times=first[by_time],
        last_times=last[by_time],
        now_ms=before_ms if before_ms is not None else latest,
    )
