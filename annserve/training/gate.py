"""Whether a newer training may take the place of the live one: both judged by what users chose in the newest window.

The two are listed for the same users, from the same histories, and what differs is taken user by user: the interval of
the mean of differences is far narrower than the difference of two intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from annserve.domain.arrays import Vectors
from annserve.domain.errors import InputError
from annserve.snapshot.snapshot import Snapshot
from annserve.training.evaluation import RECENT_SHARE, ScoreUsers, popularity_scores, ranked_lists
from annserve.training.fold_in import FoldIn
from annserve.training.metrics import mean_interval, user_scores
from annserve.training.pairs import Pairs
from annserve.training.train import TrainingSettings, fold_in_histories
from annserve.training.window import Window

_LOST_TOLD: Final = 5
COVERAGE_KEPT: Final = 0.5
"""The share of the live one's coverage that a candidate must reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What a candidate must come up to."""

    k: int = 20
    """The length of the lists that are judged."""
    loss_max: float = 0.05
    """The share of the baseline's recall that may be lost, to the lower end of the 95 % interval."""
    shrink_max: float = 0.2
    """The share by which the catalogue may have shrunk."""
    users_min: int = 30
    """How many users must be judged for anything to be said."""
    beat_popularity: bool = True
    """Whether the candidate must be better than lists of what is popular, which know nobody's taste."""
    refuse_lost_items: bool = False
    """Whether it must have every item that placements name and the live one has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Something that lists items for users."""

    name: str
    score_users: ScoreUsers
    listable: npt.NDArray[np.bool_]
    """``(items,)``: which items of the window it can list at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What came of one contender on a window."""

    name: str
    recalls: npt.NDArray[np.float64]
    """``(users,)``: warm users, then those without a past."""
    ndcg: float
    coverage: float
    """The share of the items known before the split that is in anybody's list."""

    @property
    def recall(self) -> float:
        """The mean over users."""
        return float(self.recalls.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One demand on a candidate, and whether it was met."""

    name: str
    passed: bool
    finding: str
    """What was seen, and the bound."""


def judged(window: Window, contender: Contender, k: int) -> Judged:
    """Return what comes of ``contender`` on ``window``."""
    known = np.zeros(len(window.train.item_ids), dtype=bool)
    known[window.train.items] = True
    recalls, ndcgs, listed = [], [], np.zeros(len(known), dtype=bool)
    for cohort in (window.warm, window.unseen):
        if not cohort.targets.shape[0]:
            continue
        lists = ranked_lists(contender.score_users, cohort, known & contender.listable, k)
        cohort_recalls, cohort_ndcgs = user_scores(lists, cohort.targets, lot_count=cohort.lot_count)
        recalls.append(cohort_recalls)
        ndcgs.append(cohort_ndcgs)
        listed[lists[lists >= 0]] = True
    return Judged(
        name=contender.name,
        recalls=np.concatenate(recalls),
        ndcg=float(np.concatenate(ndcgs).mean()),
        coverage=float(listed.sum() / known.sum()),
    )


def most_popular(window: Window, k: int) -> Judged:
    """Return what comes of lists of popular items, those of lately or of all times: whichever are better."""
    everything = np.ones(len(window.train.item_ids), dtype=bool)
    contenders = [
        Contender(name=name, score_users=popularity_scores(window.train, share), listable=everything)
        for name, share in (("recent popularity", RECENT_SHARE), ("all-time popularity", 1.0))
    ]
    return max((judged(window, contender, k) for contender in contenders), key=lambda one: one.recall)


def checks_of(candidate: Judged, baseline: Judged | None, popular: Judged, settings: GateSettings) -> tuple[Check, ...]:
    """Return what is demanded of ``candidate``; ``baseline`` is None where nothing is live."""
    checks = [_enough_users(candidate, settings)]
    if baseline is not None:
        checks += [_recall(candidate, baseline, settings), _coverage(candidate, baseline)]
    if settings.beat_popularity:
        checks.append(_beats(candidate, popular))
    return tuple(checks)


def catalogue_check(item_count: int, live_count: int, settings: GateSettings) -> Check:
    """Return whether the catalogue is still about as large as it was."""
    least = (1.0 - settings.shrink_max) * live_count
    return Check(
        name="catalogue",
        passed=item_count >= least,
        finding=f"{item_count:,} items, {live_count:,} in the live snapshot; at least {least:,.0f} are wanted",
    )


def placements_check(lost: Mapping[str, Sequence[str]], named_count: int, settings: GateSettings) -> Check:
    """Return whether what placements name is still there; ``lost`` is what is live and would go, by placement."""
    said = "; ".join(f"{placement} loses {_some(item_ids)}" for placement, item_ids in lost.items())
    return Check(
        name="placements",
        passed=not (lost and settings.refuse_lost_items),
        finding=said or f"none of the {named_count:,} items that they name would go",
    )


def _some(item_ids: Sequence[str]) -> str:
    more = len(item_ids) - _LOST_TOLD
    return ", ".join(item_ids[:_LOST_TOLD]) + (f" and {more:,} more" if more > 0 else "")


def paired_interval(candidate: Judged, baseline: Judged) -> tuple[float, float, float]:
    """Return the mean difference of recall, candidate less baseline, and its 95 % interval, by bootstrap over users."""
    differences = candidate.recalls - baseline.recalls
    # A bootstrap of equal values has nothing to resample.
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0]), float(differences[0])
    low, high = mean_interval(differences)
    return float(differences.mean()), low, high


def snapshot_contender(snapshot: Snapshot, window: Window, settings: TrainingSettings) -> Contender:
    """Return ``snapshot`` as it would have served the users of ``window``: folded in from their histories.

    Items that it does not have it cannot list, and they tell it nothing of a user.

    Raises:
        InputError: it has no fold-in constants.
    """
    if snapshot.fold_in is None:
        raise InputError(f"snapshot {snapshot.id} has no fold-in constants", snapshot_id=snapshot.id)
    fold_in = FoldIn(snapshot.gram, snapshot.fold_in)
    rows = np.array([-1 if row is None else row for row in map(snapshot.items.row, window.train.item_ids)])
    known = rows >= 0
    item_vectors: Vectors = np.zeros((len(rows), snapshot.item_vectors.shape[1]), np.float32)
    item_vectors[known] = snapshot.item_vectors[rows[known]]
    prior = np.zeros(len(rows), np.float32)
    prior[known] = snapshot.popularity_weight * snapshot.popularity[rows[known]]

    def score_users(history: Pairs) -> Callable[[slice], npt.NDArray[np.floating]]:
        histories, weights = fold_in_histories(_only(history, known), settings)
        user_vectors = fold_in.user_vectors(item_vectors, histories, weights)
        return lambda users: user_vectors[users] @ item_vectors.T + prior

    return Contender(name=f"live snapshot {snapshot.id}", score_users=score_users, listable=known)


def _only(pairs: Pairs, known_items: npt.NDArray[np.bool_]) -> Pairs:
    keep = known_items[pairs.items]
    return replace(
        pairs,
        users=pairs.users[keep],
        items=pairs.items[keep],
        strengths=pairs.strengths[keep],
        first_times=pairs.first_times[keep],
        last_times=pairs.last_times[keep],
    )


def _enough_users(candidate: Judged, settings: GateSettings) -> Check:
    count = len(candidate.recalls)
    return Check(
        name="users",
        passed=count >= settings.users_min,
        finding=f"{count:,} users chose something in the window; at least {settings.users_min:,} are wanted",
    )


def _recall(candidate: Judged, baseline: Judged, settings: GateSettings) -> Check:
    difference, low, high = paired_interval(candidate, baseline)
    bound = -settings.loss_max * baseline.recall
    return Check(
        name="recall",
        passed=low >= bound,
        finding=f"recall@{settings.k} {candidate.recall:.4f} against {baseline.recall:.4f}: {difference:+.4f} "
        f"[{low:+.4f}, {high:+.4f}]; the lower end may not be below {bound:+.4f}",
    )


def _coverage(candidate: Judged, baseline: Judged) -> Check:
    bound = COVERAGE_KEPT * baseline.coverage
    return Check(
        name="coverage",
        passed=candidate.coverage >= bound,
        finding=f"{candidate.coverage:.3f} of the items are listed, {baseline.coverage:.3f} by the baseline; "
        f"at least {bound:.3f} is wanted",
    )


def _beats(candidate: Judged, popular: Judged) -> Check:
    difference, low, high = paired_interval(candidate, popular)
    return Check(
        name="popularity",
        passed=low > 0,
        finding=f"recall {difference:+.4f} [{low:+.4f}, {high:+.4f}] against {popular.name} ({popular.recall:.4f}); "
        "the lower end must be above 0",
    )
