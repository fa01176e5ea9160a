"""A split in time: what was known before it, and what users chose after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from annserve.domain.errors import InputError
from annserve.training.columns import moment_text
from annserve.training.interactions import Interactions
from annserve.training.pairs import Pairs, pairs_of

UNSEEN_TARGETS_MIN = 5
"""An unseen user needs as many choices: half are folded in, the other half is to be foretold."""


LOT_COUNT = 5
"""Many an unseen user has one basket, so where it is cut matters: by a hundredth of recall from lot to lot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Users that are evaluated together. Matrices are ``(users of the cohort, items)``."""

    history: Pairs
    """What is known of each user, in the cohort's own numbering of users."""
    targets: sp.csr_array
    """What each chose afterwards, for the first time: at least one item each."""
    lot_count: int = 1
    """The users stand here so many times over, each time with another cut through their baskets."""


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
    _times(interactions)
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
        InputError: there are no times; nothing lies before or after the split, or it leaves no user to judge.
    """
    times = _times(interactions)
    train = pairs_of(interactions, before_ms=split_ms)
    everything = pairs_of(interactions, before_ms=end_ms)
    known_items = np.zeros(len(interactions.item_ids), dtype=bool)
    known_items[train.items] = True
    known_users = np.zeros(len(interactions.user_ids), dtype=bool)
    known_users[train.users] = True
    chosen = (everything.first_times >= split_ms) & known_items[everything.items]
    warm = _warm(train, everything, chosen & known_users[everything.users])
    unseen = _unseen(everything, chosen & ~known_users[everything.users], split_ms, seed)
    if not len(train):
        raise InputError(
            f"nothing to train on: no interaction is older than {moment_text(split_ms)} UTC, "
            f"the oldest is of {moment_text(int(times.min()))}"
        )
    if not (warm.targets.shape[0] or unseen.targets.shape[0]):
        raise InputError(
            f"nobody to judge: since {moment_text(split_ms)} UTC no known user chose a known item for the first time, "
            f"and no unseen user {UNSEEN_TARGETS_MIN} of them; the newest interaction is of "
            f"{moment_text(int(times.max()))}"
        )
    return Window(
        train=train,
        split_ms=split_ms,
        end_ms=end_ms if end_ms is not None else everything.now_ms,
        warm=warm,
        unseen=unseen,
    )


def _times(interactions: Interactions) -> npt.NDArray[np.int64]:
    if interactions.times is None:
        raise InputError("a split in time needs times: name the time column (--time-column)")
    return interactions.times


def _warm(train: Pairs, everything: Pairs, target: npt.NDArray[np.bool_]) -> Cohort:
    users = np.unique(everything.users[target])
    return Cohort(
        history=_renumbered(train, np.isin(train.users, users), users),
        targets=_renumbered(everything, target, users).matrix(),
    )


def _unseen(everything: Pairs, chosen: npt.NDArray[np.bool_], split_ms: int, seed: int) -> Cohort:
    """Cut each unseen user's choices in two by time. A basket that is cut is cut at random, several times over."""
    users, counts = np.unique(everything.users[chosen], return_counts=True)
    users, counts = users[counts >= UNSEEN_TARGETS_MIN], counts[counts >= UNSEEN_TARGETS_MIN]
    taken = np.flatnonzero(chosen & np.isin(everything.users, users))
    rank = np.arange(len(taken)) - np.repeat(np.cumsum(counts) - counts, counts)
    earlier = rank < np.repeat(counts // 2, counts)
    rng = np.random.default_rng(seed)
    known, wanted = [], []
    for _ in range(LOT_COUNT):
        order = np.lexsort((rng.random(len(taken)), everything.first_times[taken], everything.users[taken]))
        known.append(taken[order][earlier])
        wanted.append(taken[order][~earlier])
    numbers = np.searchsorted(users, everything.users)
    return Cohort(
        history=_stacked(everything, known, numbers, len(users), split_ms),
        targets=_stacked(everything, wanted, numbers, len(users), split_ms).matrix(),
        lot_count=LOT_COUNT,
    )


def _stacked(
    pairs: Pairs, lots: list[npt.NDArray[np.int64]], numbers: npt.NDArray[np.int64], user_count: int, split_ms: int
) -> Pairs:
    """Return the first interactions of every lot, one lot's users after the other's.

    A first visit is as fresh as can be: its ages are counted from the split, before it began.
    """
    kept = np.concatenate(lots)
    users = np.concatenate([numbers[lot] + number * user_count for number, lot in enumerate(lots)])
    order = np.lexsort((np.arange(len(kept)), pairs.first_times[kept], users))
    kept, users = kept[order], users[order]
    ids = [pairs.user_ids[user] for user in np.unique(pairs.users[kept])]
    return Pairs(
        user_ids=ids * len(lots),
        item_ids=pairs.item_ids,
        users=users.astype(np.int32),
        items=pairs.items[kept],
        strengths=np.ones(len(kept), dtype=np.float32),
        first_times=pairs.first_times[kept],
        last_times=pairs.first_times[kept],
        now_ms=split_ms,
    )


def _renumbered(pairs: Pairs, keep: npt.NDArray[np.bool_], users: npt.NDArray[np.int32]) -> Pairs:
    """Return the kept pairs, in their order, their users numbered as they stand in ``users``."""
    return Pairs(
        user_ids=[pairs.user_ids[user] for user in users],
        item_ids=pairs.item_ids,
        users=np.searchsorted(users, pairs.users[keep]).astype(np.int32),
        items=pairs.items[keep],
        strengths=pairs.strengths[keep],
        first_times=pairs.first_times[keep],
        last_times=pairs.last_times[keep],
        now_ms=pairs.now_ms,
    )
