"""A newer training is published where it is no worse than what is live; where that cannot be told, nothing is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drifting import DRIFT_DAY, LAST_DAY, SETTINGS, Deed, before, drifting, interactions_of, shuffled

from annserve.domain.errors import InputError
from annserve.search.cost import CostModel
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import load_current, load_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve.training.evaluation import model_scores
from annserve.training.gate import Contender, GateSettings, judged, paired_interval, snapshot_contender
from annserve.training.pairs import DAY_MS, pairs_of
from annserve.training.provenance import METRIC, provenance_of, trained_on
from annserve.training.refresh import Baseline, Outcome, Refreshed, RefreshSettings, refresh
from annserve.training.train import TrainingSettings, train
from annserve.training.window import split_time, window_of

DEEDS = drifting()
WEEK = RefreshSettings(window_ms=7 * DAY_MS)
FIRST = replace(WEEK, training=SETTINGS)


def made_live(store: SnapshotStore, deeds: list[Deed]) -> str:
    """Train on ``deeds``, make that live, and return its id."""
    interactions = interactions_of(deeds)
    model = train(pairs_of(interactions), TrainingSettings.model_validate(SETTINGS))
    metrics = {METRIC: provenance_of(interactions).as_metric()}
    return build_snapshot(replace(model, metrics=metrics), store, threads=1).snapshot_id


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "snapshots")


def failed(done: Refreshed) -> set[str]:
    assert done.outcome is Outcome.REFUSED
    assert done.gate is not None
    return {check.name for check in done.gate.checks if not check.passed}


def test_where_tastes_have_changed_the_newer_training_wins_and_is_published(store: SnapshotStore) -> None:
    old = made_live(store, before(DEEDS, DRIFT_DAY))

    done = refresh(interactions_of(DEEDS), store, WEEK)

    assert (done.outcome, done.live_id, done.is_live) == (Outcome.PUBLISHED, old, True)
    assert done.gate is not None
    assert done.gate.baseline is Baseline.LIVE
    assert done.gate.difference is not None
    assert done.gate.difference[1] > 0.2
    assert store.current_id() == done.snapshot_id
    manifest = store.info(store.ids()[0]).manifest
    assert manifest is not None
    assert trained_on(manifest.metrics) == done.data
    assert manifest.training.parameters["factors"] == 16
    assert manifest.metrics["refresh"] == done.gate.as_metric()


@pytest.mark.parametrize("until_day", [LAST_DAY - 7, LAST_DAY], ids=["the past", "everything"])
@pytest.mark.parametrize("live_day", [DRIFT_DAY + 20, LAST_DAY - 1], ids=["live is older", "live has seen the window"])
def test_items_in_a_muddle_are_refused_and_nothing_changes(
    store: SnapshotStore, until_day: float, live_day: float
) -> None:
    old = made_live(store, before(DEEDS, live_day))

    done = refresh(interactions_of(shuffled(DEEDS, until_day)), store, WEEK)

    assert "popularity" in failed(done)
    assert "popularity" in done.problem
    assert (store.ids(), store.current_id()) == ([old], old)


def test_a_live_snapshot_that_foretells_more_stays(store: SnapshotStore) -> None:
    old = made_live(store, before(DEEDS, LAST_DAY - 8))

    done = refresh(interactions_of(DEEDS), store, replace(WEEK, training={"factors": "1"}))

    assert "recall" in failed(done)
    assert done.gate is not None
    assert done.gate.baseline is Baseline.LIVE
    assert done.gate.difference is not None
    assert done.gate.difference[2] < 0
    assert store.current_id() == old


def test_a_live_snapshot_that_has_seen_the_window_is_stood_for_by_its_recipe(store: SnapshotStore) -> None:
    made_live(store, before(DEEDS, LAST_DAY - 1))

    same = refresh(interactions_of(DEEDS), store, replace(WEEK, activate=False))
    other = refresh(interactions_of(DEEDS), store, replace(WEEK, training={"factors": "1"}))

    assert same.gate is not None
    assert (same.outcome, same.gate.baseline, same.gate.difference) == (
        Outcome.PUBLISHED,
        Baseline.RETRAINED,
        (0.0, 0.0, 0.0),
    )
    assert "recall" in failed(other)


def test_nothing_new_is_told_and_nothing_is_done(store: SnapshotStore) -> None:
    made_live(store, before(DEEDS, DRIFT_DAY))
    first = refresh(interactions_of(DEEDS), store, WEEK)

    again = refresh(interactions_of(DEEDS[::-1]), store, WEEK)
    store.roll_back()
    taken_back = refresh(interactions_of(DEEDS), store, WEEK)

    assert (again.outcome, again.snapshot_id, again.is_live) == (Outcome.NOTHING_NEW, first.snapshot_id, True)
    assert (taken_back.outcome, taken_back.snapshot_id, taken_back.is_live) == (
        Outcome.NOTHING_NEW,
        first.snapshot_id,
        False,
    )
    assert len(store.ids()) == 2


def test_another_recipe_is_something_new(store: SnapshotStore) -> None:
    made_live(store, DEEDS)

    done = refresh(interactions_of(DEEDS), store, replace(WEEK, training={"seed": "1"}))

    assert done.outcome is Outcome.PUBLISHED


def test_the_first_is_published_where_nothing_is_live(store: SnapshotStore) -> None:
    done = refresh(interactions_of(DEEDS), store, FIRST)

    assert (done.outcome, done.live_id, done.is_live) == (Outcome.PUBLISHED, None, True)
    assert done.gate is not None
    assert (done.gate.baseline, done.gate.difference) == (Baseline.NONE, None)
    assert load_current(store, cost=CostModel()).snapshot.id == done.snapshot_id


def test_what_is_not_to_be_activated_is_published_and_not_live(store: SnapshotStore) -> None:
    old = made_live(store, before(DEEDS, DRIFT_DAY))

    done = refresh(interactions_of(DEEDS), store, replace(WEEK, activate=False))

    assert (done.outcome, done.is_live, store.current_id()) == (Outcome.PUBLISHED, False, old)
    assert done.snapshot_id in store.ids()


def test_what_was_cut_off_just_before_it_was_live_is_made_live_without_training(store: SnapshotStore) -> None:
    made_live(store, before(DEEDS, DRIFT_DAY))
    cut_off = refresh(interactions_of(DEEDS), store, replace(WEEK, activate=False))
    store.begin_publishing(cut_off.data.digest)

    done = refresh(interactions_of(DEEDS), store, WEEK)

    assert (done.outcome, done.snapshot_id, done.is_live) == (Outcome.PUBLISHED, cut_off.snapshot_id, True)
    assert store.current_id() == cut_off.snapshot_id
    assert store.unfinished() == ""


def test_where_another_was_made_live_meanwhile_it_stays(store: SnapshotStore) -> None:
    ids = [made_live(store, before(DEEDS, day)) for day in (50, DRIFT_DAY)]

    def interfere(stage: str, done: int, total: int | None) -> None:
        if (stage, done) == ("fitting", total):
            store.activate(ids[0])

    done = refresh(interactions_of(DEEDS), store, WEEK, progress=interfere)

    assert done.outcome is Outcome.REFUSED
    assert ids[1] in done.problem
    assert store.current_id() == ids[0]


def test_a_catalogue_that_has_shrunk_is_refused(store: SnapshotStore) -> None:
    made_live(store, before(DEEDS, DRIFT_DAY))
    few = [deed for deed in DEEDS if int(deed.item[1:]) < 100]

    done = refresh(interactions_of(few), store, WEEK)
    allowed = refresh(interactions_of(few), store, replace(WEEK, gate=GateSettings(shrink_max=0.5)))

    assert failed(done) == {"catalogue"}
    assert "100 items, 160 in the live snapshot" in done.problem
    assert allowed.outcome is Outcome.PUBLISHED


def test_too_few_users_say_nothing(store: SnapshotStore) -> None:
    made_live(store, before(DEEDS, DRIFT_DAY))

    done = refresh(interactions_of(DEEDS), store, replace(WEEK, gate=GateSettings(users_min=121)))
    nothing = refresh(interactions_of(DEEDS), store, replace(WEEK, window_ms=1_000 * DAY_MS))
    nobody = refresh(interactions_of(DEEDS), store, replace(WEEK, window_ms=1))

    assert failed(done) == {"users"}
    assert (nothing.outcome, nobody.outcome) == (Outcome.REFUSED, Outcome.REFUSED)
    assert "nothing to train on: no interaction is older than 2023-07-15 23:59 UTC, the oldest is of" in nothing.problem
    assert nothing.problem.endswith("; take a shorter window (--window) than 1,000 days, or wait for more data")
    assert "nobody to judge" in nobody.problem
    assert "; take another window (--window) than 0 days" in nobody.problem
    assert len(store.ids()) == 1


def test_items_and_users_new_since_are_counted(store: SnapshotStore) -> None:
    made_live(store, before(DEEDS, DRIFT_DAY))
    news = [replace(deed, item="new") for deed in DEEDS[-3:]] + [
        replace(deed, user="stranger") for deed in DEEDS[-9:-3]
    ]

    done = refresh(interactions_of([*DEEDS, *news]), store, WEEK)

    assert (done.new_item_count, done.new_user_count) == (1, 1)


def test_only_so_many_snapshots_are_kept(store: SnapshotStore) -> None:
    ids = [made_live(store, before(DEEDS, day)) for day in (40, 50, DRIFT_DAY)]

    done = refresh(interactions_of(DEEDS), store, replace(WEEK, keep=2))

    assert sorted(done.removed_ids) == sorted(ids[:2])
    assert len(store.ids()) == 2


def test_what_was_imported_cannot_be_trained_anew(store: SnapshotStore) -> None:
    model = train(pairs_of(interactions_of(DEEDS)), TrainingSettings.model_validate(SETTINGS))
    build_snapshot(replace(model, trainer="imported", parameters={"items": {}}), store, threads=1)

    with pytest.raises(InputError, match="cannot be trained anew"):
        refresh(interactions_of(DEEDS), store, WEEK)


def test_a_snapshot_is_judged_as_the_model_it_was_built_of(store: SnapshotStore) -> None:
    settings = TrainingSettings.model_validate(SETTINGS)
    interactions = interactions_of(DEEDS)
    window = window_of(interactions, split_time(interactions, 0.9))
    model = train(window.train, settings)
    everything = np.ones(len(model.item_ids), dtype=bool)
    snapshot = load_snapshot(build_snapshot(model, store, threads=1).path, cost=CostModel())

    bare = judged(window, Contender(name="model", score_users=model_scores(model, settings), listable=everything), 10)
    served = judged(window, snapshot_contender(snapshot, window, settings), 10)

    np.testing.assert_allclose(served.recalls, bare.recalls, atol=1e-12)
    assert paired_interval(served, bare) == (0.0, 0.0, 0.0)
