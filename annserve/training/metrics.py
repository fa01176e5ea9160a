"""What a ranked list is worth, judged by what its user chose afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.stats import bootstrap

from annserve.domain.arrays import Rows

MOST_POPULAR_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ListMetrics:
    """Means over users, with the 95 % bootstrap interval of recall. All are shares, 0 to 1, but novelty."""

    user_count: int
    recall: float
    """Targets in the list, divided by the smaller of k and the number of targets."""
    recall_low: float
    recall_high: float
    ndcg: float
    """Normalised discounted cumulative gain, binary (Järvelin and Kekäläinen, 2002)."""
    coverage: float
    """The share of all items that is in anybody's list."""
    novelty: float
    """The mean of ``-log2`` of the share of users who had the item: how little-seen the listed items were, in bits."""
    most_popular: float
    """The share of all list places that went to the most popular 1 % of items."""


def list_metrics(
    lists: Rows,
    targets: sp.csr_array,
    item_user_counts: npt.NDArray[np.int64],
    known_user_count: int,
    *,
    lot_count: int = 1,
    seed: int = 0,
) -> ListMetrics:
    """Return the metrics of ``lists``.

    Args:
        lists: ``(users, k)`` item rows, best first; -1 where a list is short.
        targets: ``(users, items)``, non-zero where the user chose the item afterwards; at least one per user.
        item_user_counts: ``(items,)``: how many users had each item before the split.
        known_user_count: How many users had anything before the split, at least 1.
        lot_count: How many times over the users stand in ``lists``; each counts once, with the mean of its recalls.
        seed: Of the bootstrap.
    """
    recalls, ndcgs = user_scores(lists, targets, lot_count=lot_count)
    listed = lists[lists >= 0]
    # An item nobody had yet counts as had by one, so that novelty stays finite.
    seen_shares = np.maximum(item_user_counts[listed], 1) / known_user_count
    most_popular_count = max(1, round(MOST_POPULAR_SHARE * len(item_user_counts)))
    most_popular = np.argsort(-item_user_counts, kind="stable")[:most_popular_count]
    low, high = mean_interval(recalls, seed)
    return ListMetrics(
        user_count=len(recalls),
        recall=float(recalls.mean()),
        recall_low=low,
        recall_high=high,
        ndcg=float(ndcgs.mean()),
        coverage=len(np.unique(listed)) / len(item_user_counts),
        novelty=float(-np.log2(seen_shares).mean()),
        most_popular=float(np.isin(listed, most_popular).mean()),
    )


def user_scores(
    lists: Rows, targets: sp.csr_array, *, lot_count: int = 1
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the recall and the nDCG of each user, ``(users,)`` each: the means over her lots; see `list_metrics`."""
    k = lists.shape[1]
    hits = hits_of(lists, targets)
    possible = np.minimum(k, np.diff(targets.indptr))
    recalls = hits.sum(axis=1) / possible
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ndcgs = hits @ discounts / np.cumsum(discounts)[possible - 1]
    return recalls.reshape(lot_count, -1).mean(axis=0), ndcgs.reshape(lot_count, -1).mean(axis=0)


def hits_of(lists: Rows, targets: sp.csr_array) -> npt.NDArray[np.bool_]:
    """Return, for each place of ``lists``, whether the user chose that item: ``(users, k)``."""
    item_count = targets.shape[1]
    users = np.arange(len(lists))[:, np.newaxis]
    wanted = np.repeat(np.arange(len(lists)), np.diff(targets.indptr)) * item_count + targets.indices
    hits: npt.NDArray[np.bool_] = np.isin(users * item_count + lists, wanted) & (lists >= 0)
    return hits


def mean_interval(values: npt.NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean, by the percentile bootstrap (Efron, 1979) over users."""
    if len(values) < 2:
        return float(values.mean()), float(values.mean())
    interval = bootstrap(
        (values,), np.mean, n_resamples=1_000, batch=100, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(interval.low), float(interval.high)
