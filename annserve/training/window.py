"""A split in time: what was known before it, and what users chose after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from annserve.domain.errors import InputError
from annserve.training.interactions import Interactions
from annserve.training.pairs import Pairs, pairs_of

UNSEEN_TARGETS_MIN = 5
"""An unseen user needs as many choices: half are folded in, the other half is to be foretold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Users that are evaluated together. Matrices are ``(users of the cohort, items)``."""

    history: Pairs
    """What is known of each user, in the cohort's own numbering of users."""
    targets: sp.csr_array
    """What each chose afterwards, for the first time: at least one item each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One evaluation: training data, and two cohorts judged by what came after ``split_ms``."""

    train: Pairs
    split_ms: int
    end_ms: int
    warm: Cohort
    """Users with a past: their history is the training data."""
    unseen: Cohort
    """Users without one: the earlier half of what they chose is folded in, the later half is the target."""


def split_time(interactions: Interactions, quantile: float, *, end_ms: int | None = None) -> int:
    """Return the moment, in ms UTC, before which ``quantile`` of all first interactions (before ``end_ms``) lie.

    A first interaction is the first one of a user with an item.

    Raises:
        InputError: the interactions have no times.
    """
    if interactions.times is None:
        raise InputError("a split in time needs times: name the time column")
    first = pairs_of(interactions, before_ms=end_ms).first_times
    return int(np.quantile(first, quantile))


def window_of(interactions: Interactions, split_ms: int, *, end_ms: int | None = None, seed: int = 0) -> Window:
    """Return the window that is split at ``split_ms`` and ends before ``end_ms``.

    Targets are first interactions of a user with an item that was known before the split.

    Args:
        interactions: With times.
        split_ms: Milliseconds since 1970-01-01 UTC.
        end_ms: None takes everything after the split.
        seed: Orders, for an unseen user, what was chosen at one moment (one basket).

    Raises:
        InputError: nothing lies before or after the split, or it leaves no user to judge.
    """
    train = pairs_of(interactions, before_ms=split_ms)
    everything = pairs_of(interactions, before_ms=end_ms)
    known_items = np.zeros(len(interactions.item_ids), dtype=bool)
    known_items[train.items] = True
    known_users = np.zeros(len(interactions.user_ids), dtype=bool)
    known_users[train.users] = True
    chosen = (everything.first_times >= split_ms) & known_items[everything.items]
    warm = _warm(train, everything, chosen & known_users[everything.users])
    unseen = _unseen(everything, chosen & ~known_users[everything.users], split_ms, seed)
    if not len(train) or not (warm.targets.shape[0] or unseen.targets.shape[0]):
        raise InputError("the split leaves nothing to train on, or nobody to judge; choose another")
    return Window(
        train=train,
        split_ms=split_ms,
        end_ms=end_ms if end_ms is not None else everything.now_ms,
        warm=warm,
        unseen=unseen,
    )


def _warm(train: Pairs, everything: Pairs, target: npt.NDArray[np.bool_]) -> Cohort:
    users = np.unique(everything.users[target])
    return Cohort(
        history=_renumbered(train, np.isin(train.users, users), users),
        targets=_renumbered(everything, target, users).matrix(),
    )


def _unseen(everything: Pairs, chosen: npt.NDArray[np.bool_], split_ms: int, seed: int) -> Cohort:
    """Cut each unseen user's choices in two by time; a basket that is cut is cut at random."""
    users, counts = np.unique(everything.users[chosen], return_counts=True)
    users, counts = users[counts >= UNSEEN_TARGETS_MIN], counts[counts >= UNSEEN_TARGETS_MIN]
    taken = np.flatnonzero(chosen & np.isin(everything.users, users))
    lots = np.random.default_rng(seed).random(len(taken))
    taken = taken[np.lexsort((lots, everything.first_times[taken], everything.users[taken]))]
    rank = np.arange(len(taken)) - np.repeat(np.cumsum(counts) - counts, counts)
    earlier = rank < np.repeat(counts // 2, counts)
    return Cohort(
        # A first visit is as fresh as can be: its moment is taken for the split itself.
        history=_renumbered(everything, taken[earlier], users, now_ms=split_ms),
        targets=_renumbered(everything, taken[~earlier], users).matrix(),
    )


def _renumbered(
    pairs: Pairs, keep: npt.NDArray[np.bool_ | np.int64], users: npt.NDArray[np.int32], *, now_ms: int | None = None
) -> Pairs:
    """Return the kept pairs, their users numbered as they stand in ``users``."""
    first = pairs.first_times[keep]
    last = first if now_ms is not None else pairs.last_times[keep]
    numbers = np.searchsorted(users, pairs.users[keep]).astype(np.int32)
    order = np.lexsort((np.arange(len(numbers)), last, numbers))
    return Pairs(
        user_ids=[pairs.user_ids[user] for user in users],
        item_ids=pairs.item_ids,
        users=numbers[order],
        items=pairs.items[keep][order],
        strengths=np.ones(len(numbers), dtype=np.float32) if now_ms is not None else pairs.strengths[keep][order],
        first_times=first[order],
        last_times=last[order],
        now_ms=pairs.now_ms if now_ms is None else now_ms,
        has_times=pairs.has_times,
    )
