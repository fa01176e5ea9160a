"""Recommenders side by side on one window: what each puts first, judged by what users chose next."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from implicit.nearest_neighbours import CosineRecommender
from implicit.utils import ParameterWarning

from annserve.domain.arrays import Rows
from annserve.domain.model import Model
from annserve.domain.progress import Progress, no_progress
from annserve.training.metrics import ListMetrics, list_metrics
from annserve.training.pairs import Pairs
from annserve.training.train import TrainingSettings, folded_in, train
from annserve.training.window import Cohort, Window

ScoreUsers: TypeAlias = Callable[[Pairs], Callable[[slice], npt.NDArray[np.floating]]]
"""From the histories of a cohort to a function from a slice of its users to their scores, ``(users, items)``."""

_USERS_AT_ONCE = 256
RECENT_SHARE = 0.1
_NEIGHBOURS = 20
"""The best of 20, 50, 100 and 200 on the validation window of the bundled data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One recommender on one cohort."""

    recommender: str
    cohort: str
    metrics: ListMetrics


def evaluate(
    window: Window,
    settings: TrainingSettings,
    *,
    k: int = 20,
    baselines: bool = True,
    threads: int = 1,
    progress: Progress = no_progress,
) -> list[Evaluated]:
    """Train on ``window`` and return the metrics of the model and the baselines, for warm and unseen users.

    Items a user already had, and items unknown before the split, are never listed.
    """
    model = train(window.train, settings, threads=threads, progress=progress)
    recommenders: dict[str, ScoreUsers] = {f"annserve ({model.trainer})": model_scores(model, settings)}
    if baselines:
        recommenders |= {
            "item-kNN": _item_knn_scores(window.train),
            "recent popularity": popularity_scores(window.train, RECENT_SHARE),
            "all-time popularity": popularity_scores(window.train, 1.0),
        }
    user_counts = np.bincount(window.train.items, minlength=len(window.train.item_ids))
    known_user_count = len(np.unique(window.train.users))
    evaluated = []
    for name, score_users in recommenders.items():
        for cohort_name, cohort in (("warm", window.warm), ("unseen", window.unseen)):
            if cohort.targets.shape[0]:
                lists = ranked_lists(score_users, cohort, user_counts > 0, k)
                metrics = list_metrics(lists, cohort.targets, user_counts, known_user_count, lot_count=cohort.lot_count)
                evaluated.append(Evaluated(recommender=name, cohort=cohort_name, metrics=metrics))
    return evaluated


def ranked_lists(score_users: ScoreUsers, cohort: Cohort, known_items: npt.NDArray[np.bool_], k: int) -> Rows:
    """Return the ``k`` best items for each user of ``cohort``, ``(users, k)``, without what the user had."""
    scores_of = score_users(cohort.history)
    seen = cohort.history.matrix()
    lists = np.full((cohort.targets.shape[0], k), -1, dtype=np.int64)
    for users in _slices(len(lists)):
        scores = np.array(scores_of(users), dtype=np.float32)
        scores[:, ~known_items] = -np.inf
        scores[seen[users].nonzero()] = -np.inf
        depth = min(k, scores.shape[1])
        best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        best_scores = np.take_along_axis(scores, best, axis=1)
        order = np.lexsort((best, -best_scores), axis=-1)
        best = np.take_along_axis(best, order, axis=1)
        best[np.isneginf(np.take_along_axis(best_scores, order, axis=1))] = -1
        lists[users, :depth] = best
    return lists


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _USERS_AT_ONCE, count)) for start in range(0, count, _USERS_AT_ONCE))


def model_scores(model: Model, settings: TrainingSettings) -> ScoreUsers:
    """Score as serving does: users folded in from their latest items, plus the weighted prior."""
    prior = model.popularity_weight * model.popularity

    def score_users(history: Pairs) -> Callable[[slice], npt.NDArray[np.floating]]:
        user_vectors = folded_in(history, model.item_vectors, settings.item_trainer().fold_in, settings)
        return lambda users: user_vectors[users] @ model.item_vectors.T + prior

    return score_users


def popularity_scores(train_pairs: Pairs, recent_share: float) -> ScoreUsers:
    """Score by how many users took up the item in the latest ``recent_share`` of first interactions."""
    since = np.quantile(train_pairs.first_times, 1.0 - recent_share)
    counts = np.bincount(
        train_pairs.items[train_pairs.first_times >= since], minlength=len(train_pairs.item_ids)
    ).astype(np.float64)
    return lambda _history: lambda users: np.tile(counts, (users.stop - users.start, 1))


def _item_knn_scores(train_pairs: Pairs) -> ScoreUsers:
    """Score by the summed cosine similarity to the items of the history, by `implicit`."""
    knn = CosineRecommender(K=_NEIGHBOURS, num_threads=1)
    with warnings.catch_warnings():
        # The library complains of a conversion that it does itself.
        warnings.simplefilter("ignore", ParameterWarning)
        knn.fit(sp.csr_matrix(train_pairs.matrix()), show_progress=False)
    similarity = sp.csr_array(knn.similarity)

    def score_users(history: Pairs) -> Callable[[slice], npt.NDArray[np.floating]]:
        matrix = history.matrix()
        return lambda users: (matrix[users] @ similarity).toarray()

    return score_users
