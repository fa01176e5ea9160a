"""A refresh: train the live snapshot's recipe anew, hold it against what is live, and publish it or say why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np

from annserve.domain.errors import BuildError, InputError
from annserve.domain.progress import Progress, no_progress
from annserve.search.cost import CostModel
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import Snapshot, load_snapshot
from annserve.snapshot.store import SnapshotInfo, SnapshotStore
from annserve.training.evaluation import model_scores
from annserve.training.gate import (
    Check,
    Contender,
    GateSettings,
    Judged,
    catalogue_check,
    checks_of,
    judged,
    most_popular,
    paired_interval,
    placements_check,
    snapshot_contender,
)
from annserve.training.interactions import Interactions
from annserve.training.pairs import DAY_MS, pairs_of
from annserve.training.provenance import METRIC, Provenance, provenance_of, trained_on
from annserve.training.train import TrainingSettings, train
from annserve.training.window import Window, window_of


class Outcome(str, Enum):
    """How a refresh ended."""

    PUBLISHED = "published"
    NOTHING_NEW = "nothing_new"
    REFUSED = "refused"


class Baseline(str, Enum):
    """What the candidate was compared with."""

    LIVE = "live"
    """The live snapshot itself, which has seen nothing of the window."""
    RETRAINED = "retrained"
    """The live snapshot's recipe, trained on what came before the window: the snapshot has seen some of the window."""
    NONE = "none"
    """Nothing is live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSettings:
    """How to refresh."""

    window_ms: int
    """How much of the newest data is held out to judge by."""
    training: Mapping[str, str] = field(default_factory=dict)
    """Training settings in place of those of the live snapshot's recipe."""
    gate: GateSettings = field(default_factory=GateSettings)
    named_items: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Items that are shown because they are named, in pins and lists, by placement."""
    recall_target: float = 0.98
    accept_recall: float | None = None
    activate: bool = True
    keep: int = 5
    """How many of the newest snapshots are kept once another was published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What was compared, and what was found."""

    window_start_ms: int
    window_end_ms: int
    user_count: int
    k: int
    """The length of the lists that were judged."""
    baseline: Baseline
    judged: tuple[Judged, ...]
    """The candidate, what is popular, and the baseline where there is one."""
    difference: tuple[float, float, float] | None
    """Of recall, candidate less baseline, and its 95 % interval; None without a baseline."""
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check was."""
        return all(check.passed for check in self.checks)

    def as_metric(self) -> dict[str, Any]:
        """Return what a manifest holds of it."""
        return {
            "window_start_ms": self.window_start_ms,
            "window_end_ms": self.window_end_ms,
            "user_count": self.user_count,
            "k": self.k,
            "baseline": self.baseline.value,
            "judged": [
                {"name": one.name, "recall": one.recall, "ndcg": one.ndcg, "coverage": one.coverage}
                for one in self.judged
            ],
            "difference": None if self.difference is None else list(self.difference),
            "checks": [asdict(check) for check in self.checks],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What came of a refresh."""

    outcome: Outcome
    live_id: str | None
    """The snapshot that was live before."""
    snapshot_id: str | None = None
    """The one that was published, or that has all there is already."""
    is_live: bool = False
    """Whether that one is the live one now."""
    problem: str = ""
    """Why nothing was published."""
    data: Provenance
    new_item_count: int = 0
    """Items with interactions that the snapshot that was live does not have."""
    new_user_count: int = 0
    lost_items: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of `RefreshSettings.named_items`: those that the snapshot which was live has, and the new one has not."""
    gate: Gate | None = None
    removed_ids: tuple[str, ...] = ()


def refresh(
    interactions: Interactions,
    store: SnapshotStore,
    settings: RefreshSettings,
    *,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Refreshed:
    """Train, compare, and publish or not. What is here before is never worse off, wherever this is killed.

    Args:
        interactions: All there are, with times.
        store: Where the live snapshot is, and the new one will be. Only one refresh at a time may use it.
        settings: How.
        threads: To train and build with.
        progress: Told how far it is.

    Raises:
        InputError: the live snapshot's recipe is not known, as when it was imported; or there are no times.
        SnapshotRefusedError: the live snapshot is damaged.
    """
    if interactions.times is None:
        raise InputError("a refresh needs times")
    data, live_id = provenance_of(interactions), store.current_id()
    live = None if live_id is None else load_snapshot(store.path(live_id), cost=CostModel())
    recipe = None if live is None else _recipe(live)
    training = _chosen(recipe, settings.training)
    known = _same(store, data, training)
    if known is not None:
        return _known(store, known, live_id, data, settings)
    result = Refreshed(
        outcome=Outcome.REFUSED,
        live_id=live_id,
        data=data,
        new_item_count=0 if live is None else len(live.items.rows(interactions.item_ids)[1]),
        new_user_count=0 if live is None else len(live.users.rows(interactions.user_ids)[1]),
        lost_items={} if live is None else _lost(settings.named_items, live, interactions),
    )
    oldest_ms, newest_ms = int(interactions.times.min()), int(interactions.times.max())
    try:
        window = window_of(interactions, newest_ms - settings.window_ms)
    except InputError as error:
        better = "a shorter" if newest_ms - oldest_ms <= settings.window_ms else "another"
        days = f"{round(settings.window_ms / DAY_MS, 2):,g} days"
        return replace(result, problem=f"{error}; take {better} window (--window) than {days}, or wait for more data")
    gate = _gate(interactions, window, live, recipe, training, settings.gate, threads, progress)
    if live is not None and settings.named_items:
        named_count = len({item_id for item_ids in settings.named_items.values() for item_id in item_ids})
        check = placements_check(result.lost_items, named_count, settings.gate)
        gate = replace(gate, checks=(*gate.checks, check))
    result = replace(result, gate=gate)
    if not gate.passed:
        failed = [f"{check.name}: {check.finding}" for check in gate.checks if not check.passed]
        return replace(result, problem="; ".join(failed))
    del live, window
    model = train(pairs_of(interactions), training, threads=threads, progress=progress)
    model = replace(model, metrics={METRIC: data.as_metric(), "refresh": gate.as_metric()})
    if store.current_id() != live_id:
        return replace(result, problem=f"another snapshot than {live_id} was made live meanwhile")
    store.begin_publishing(data.digest if settings.activate else "")
    try:
        built = build_snapshot(
            model,
            store,
            recall_target=settings.recall_target,
            accept_recall=settings.accept_recall,
            threads=threads,
            activate=settings.activate,
            progress=progress,
        )
    except BuildError as error:
        store.begin_publishing("")
        return replace(result, problem=str(error))
    store.begin_publishing("")
    return replace(
        result,
        outcome=Outcome.PUBLISHED,
        snapshot_id=built.snapshot_id,
        is_live=built.is_current,
        removed_ids=tuple(store.prune(settings.keep)),
    )


def _known(
    store: SnapshotStore, known: SnapshotInfo, live_id: str | None, data: Provenance, settings: RefreshSettings
) -> Refreshed:
    """Return that there is nothing new, unless whoever built ``known`` was killed just before he made it live."""
    outcome, is_live = Outcome.NOTHING_NEW, known.is_current
    if settings.activate and not is_live and store.unfinished() == data.digest:
        store.activate(known.snapshot_id)
        outcome, is_live = Outcome.PUBLISHED, True
    store.begin_publishing("")
    return Refreshed(outcome=outcome, live_id=live_id, snapshot_id=known.snapshot_id, is_live=is_live, data=data)


def _lost(
    named: Mapping[str, Sequence[str]], live: Snapshot, interactions: Interactions
) -> Mapping[str, Sequence[str]]:
    """Return which of the ``named`` items are live and would go. Those that neither knows may come otherwise."""
    kept = frozenset(interactions.item_ids)
    lost = {
        placement: [item_id for item_id in item_ids if item_id not in kept and live.items.row(item_id) is not None]
        for placement, item_ids in named.items()
    }
    return {placement: item_ids for placement, item_ids in lost.items() if item_ids}


def _recipe(live: Snapshot) -> TrainingSettings:
    try:
        return TrainingSettings.of_parameters(live.manifest.training.parameters)
    except InputError as error:
        raise InputError(
            f"the live snapshot {live.id} cannot be trained anew ({live.manifest.training.trainer}): {error}; "
            "`annserve train` makes one that can",
            snapshot_id=live.id,
        ) from error


def _chosen(recipe: TrainingSettings | None, chosen: Mapping[str, str]) -> TrainingSettings:
    # Another trainer has other defaults, and little use for the settings of this one.
    if recipe is None or chosen.get("trainer", recipe.trainer) != recipe.trainer:
        return TrainingSettings.model_validate(chosen)
    return TrainingSettings.model_validate(recipe.model_dump() | dict(chosen))


def _same(store: SnapshotStore, data: Provenance, training: TrainingSettings) -> SnapshotInfo | None:
    """Return the newest snapshot that was trained on ``data`` by ``training``.

    It need not be live: one that was taken back is not to come again by itself.
    """
    parameters = training.as_parameters()
    for info in store.snapshots():
        manifest = info.manifest
        if manifest is None or manifest.training.parameters != parameters:
            continue
        if trained_on(manifest.metrics) == data:
            return info
    return None


def _gate(
    interactions: Interactions,
    window: Window,
    live: Snapshot | None,
    recipe: TrainingSettings | None,
    training: TrainingSettings,
    settings: GateSettings,
    threads: int,
    progress: Progress,
) -> Gate:
    everything = np.ones(len(window.train.item_ids), dtype=bool)

    def trained(name: str, chosen: TrainingSettings) -> Contender:
        model = train(window.train, chosen, threads=threads, progress=progress)
        return Contender(name=name, score_users=model_scores(model, chosen), listable=everything)

    candidate = judged(window, trained("candidate", training), settings.k)
    kind, baseline = Baseline.NONE, None
    if live is not None and recipe is not None:
        if _ends_before(live, window.split_ms):
            kind = Baseline.LIVE
            baseline = judged(window, snapshot_contender(live, window, recipe), settings.k)
        else:
            kind, name = Baseline.RETRAINED, f"recipe of {live.id}"
            same = recipe == training
            baseline = replace(candidate, name=name) if same else judged(window, trained(name, recipe), settings.k)
    popular = most_popular(window, settings.k)
    checks = checks_of(candidate, baseline, popular, settings)
    if live is not None:
        checks += (catalogue_check(len(interactions.item_ids), len(live.items), settings),)
    return Gate(
        window_start_ms=window.split_ms,
        window_end_ms=window.end_ms,
        user_count=len(candidate.recalls),
        k=settings.k,
        baseline=kind,
        judged=(candidate, popular) if baseline is None else (candidate, popular, baseline),
        difference=None if baseline is None else paired_interval(candidate, baseline),
        checks=checks,
    )


def _ends_before(live: Snapshot, moment_ms: int) -> bool:
    """Return whether everything that ``live`` was trained on is older than ``moment_ms``."""
    data = trained_on(live.manifest.metrics)
    if data is not None and data.newest_ms is not None:
        return data.newest_ms < moment_ms
    # Nothing is known of its data, but that they were there when it was made.
    return live.manifest.created_time.timestamp() * 1_000 < moment_ms
