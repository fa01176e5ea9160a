"""Interactions without what users did who were erased since: an export may be older than the erasure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from annserve.domain.erasure import ErasedUsers
from annserve.training.interactions import Interactions


def without_erased(interactions: Interactions, erased: ErasedUsers) -> Interactions:
    """Return ``interactions`` without those of erased users up to their erasure.

    Where there are no times all of theirs are left out. Users and items of which nothing is left are gone.
    """
    if not len(erased):
        return interactions
    erased_ms = np.array([erased.erased_ms(user_id) for user_id in interactions.user_ids], np.int64)
    of_rows = erased_ms[interactions.users]
    keep = of_rows == 0
    if interactions.times is not None:
        keep |= interactions.times > of_rows
    if keep.all():
        return interactions
    users, user_ids = _renumbered(interactions.users[keep], interactions.user_ids)
    items, item_ids = _renumbered(interactions.items[keep], interactions.item_ids)
    return replace(
        interactions,
        user_ids=user_ids,
        item_ids=item_ids,
        users=users,
        items=items,
        weights=interactions.weights[keep],
        times=None if interactions.times is None else interactions.times[keep],
    )


def _renumbered(positions: npt.NDArray[np.int32], ids: Sequence[str]) -> tuple[npt.NDArray[np.int32], list[str]]:
    kept, numbers = np.unique(positions, return_inverse=True)
    return numbers.astype(np.int32), [ids[position] for position in kept]
