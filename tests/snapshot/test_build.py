"""What a snapshot holds of the model it was built of, and which models are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snapshot_models import FIXED_COST, FOLD_IN, Built, make_model

from annserve.domain.errors import (
    BadVectorsError,
    BuildError,
    DuplicateIdsError,
    InvalidArgumentError,
    RecallNotReachedError,
)
from annserve.domain.model import Histories, Model
from annserve.domain.query import SearchPath
from annserve.search.graph import Graph
from annserve.search.points import Points
from annserve.search.tune import TuneSettings
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import Snapshot, load_snapshot
from annserve.snapshot.store import SnapshotStore


@pytest.fixture(scope="module")
def snapshot(built: Built) -> Snapshot:
    return load_snapshot(built.path, cost=FIXED_COST)


def test_every_item_keeps_its_vector_and_its_prior(built: Built, snapshot: Snapshot) -> None:
    for number, item_id in enumerate(built.model.item_ids):
        row = snapshot.items.row(item_id)
        assert row is not None
        np.testing.assert_array_equal(snapshot.item_vectors[row], built.model.item_vectors[number])
        assert snapshot.popularity[row] == built.model.popularity[number]
    assert len(snapshot.items) == len(built.model.item_ids)


def test_every_user_keeps_vector_and_history(built: Built, snapshot: Snapshot) -> None:
    histories = built.model.histories
    assert histories is not None
    assert snapshot.histories is not None
    for number, user_id in enumerate(built.model.user_ids):
        row = snapshot.users.row(user_id)
        assert row is not None
        np.testing.assert_array_equal(snapshot.user_vectors[row], built.model.user_vectors[number])
        had = [built.model.item_ids[item] for item in histories.of(number)]
        assert snapshot.items.ids(snapshot.histories.of(row)) == had


def test_personal_and_similar_answers_are_those_of_the_model(built: Built, snapshot: Snapshot) -> None:
    model = built.model
    vectors = model.item_vectors.astype(np.float64)
    affinity = model.user_vectors[3] @ vectors.T + 0.5 * model.popularity
    likeness = (vectors @ (vectors[7] / np.linalg.norm(vectors[7]))) / np.linalg.norm(vectors, axis=1) ** 0.75

    user = np.append(snapshot.user_vectors[snapshot.users.row(model.user_ids[3])], np.float32(0.5))
    seed = snapshot.item_vectors[snapshot.items.row(model.item_ids[7])]
    for space, query, expected in (
        (snapshot.affinity, user, affinity),
        (snapshot.likeness, seed / np.linalg.norm(seed), likeness),
    ):
        found = space.search(query, 10)
        assert snapshot.items.ids(found.rows) == [model.item_ids[item] for item in np.argsort(-expected)[:10]]
        np.testing.assert_allclose(found.scores, np.sort(expected)[::-1][:10], rtol=1e-5)


def test_constants_gram_and_popular_items_are_those_of_the_model(built: Built, snapshot: Snapshot) -> None:
    model = built.model
    vectors = model.item_vectors.astype(np.float64)
    by_popularity = [model.item_ids[item] for item in np.argsort(-model.popularity)]

    assert (snapshot.popularity_weight, snapshot.likeness_exponent, snapshot.recent_items_max) == (0.5, 0.75, 100)
    assert snapshot.fold_in == FOLD_IN
    assert snapshot.items.ids(snapshot.popular_rows) == by_popularity
    assert snapshot.gram.dtype == np.float64
    np.testing.assert_allclose(snapshot.gram, vectors.T @ vectors)


def test_nothing_in_a_loaded_snapshot_can_be_written(snapshot: Snapshot) -> None:
    assert snapshot.histories is not None
    for array in (
        snapshot.item_vectors,
        snapshot.user_vectors,
        snapshot.popularity,
        snapshot.popular_rows,
        snapshot.gram,
        snapshot.histories.indptr,
        snapshot.histories.item_rows,
    ):
        assert not array.flags.writeable
        assert type(array) is np.ndarray


def test_the_manifest_states_recall_recipe_and_every_trial(snapshot: Snapshot) -> None:
    for entry in (snapshot.manifest.spaces.affinity, snapshot.manifest.spaces.likeness):
        assert entry.path is SearchPath.HNSW
        assert entry.recall >= entry.recall_target == 0.98
        assert entry.recipe is not None
        assert entry.bands is not None
        assert entry.trials[0]["point_count"] == 60
    assert snapshot.manifest.training.parameters == {"factors": 6}
    assert snapshot.manifest.metrics == {"recall@20": 0.25}


@pytest.mark.parametrize(("item_count", "user_count"), [(1, 0), (1, 1), (2, 3), (11, 0), (40, 1)])
def test_catalogues_of_any_size_are_built_with_or_without_users(
    store: SnapshotStore, item_count: int, user_count: int
) -> None:
    model = make_model(item_count, user_count)
    snapshot = load_snapshot(build_snapshot(model, store, threads=1).path, cost=FIXED_COST)

    assert (len(snapshot.items), len(snapshot.users)) == (item_count, user_count)
    assert len(snapshot.affinity.search(np.ones(7, np.float32), 50).rows) == item_count


def test_a_user_without_taste_and_a_model_without_histories_or_fold_in_are_built(store: SnapshotStore) -> None:
    model = make_model()
    vectors = model.user_vectors.copy()
    vectors[2] = 0
    plain = replace(model, user_vectors=vectors, histories=None, fold_in=None)

    snapshot = load_snapshot(build_snapshot(plain, store, threads=1).path, cost=FIXED_COST)

    assert snapshot.histories is None
    assert snapshot.fold_in is None
    assert not snapshot.user_vectors[snapshot.users.row(model.user_ids[2])].any()


def test_only_the_graphs_differ_between_builds_of_one_model(store: SnapshotStore) -> None:
    # Which of two graphs is the cheaper is measured, so it may come out either way.
    first, second = (build_snapshot(make_model(), store, threads=1, seed=3).manifest for _ in range(2))

    assert first is not None
    assert second is not None
    differing = {name for name, entry in first.files.items() if entry != second.files[name]}
    assert differing <= {"affinity.hnsw", "likeness.hnsw"}


def with_item(model: Model, value: float) -> Model:
    vectors = model.item_vectors.copy()
    vectors[[3, 5]] = value
    return replace(model, item_vectors=vectors)


def with_user(model: Model, value: float) -> Model:
    vectors = model.user_vectors.copy()
    vectors[4, 1] = value
    return replace(model, user_vectors=vectors)


def with_prior(model: Model, value: float) -> Model:
    popularity = model.popularity.copy()
    popularity[3] = value
    return replace(model, popularity=popularity)


def with_item_id(model: Model, id_: str) -> Model:
    return replace(model, item_ids=[id_, *model.item_ids[1:]])


def with_histories(model: Model, **change: Any) -> Model:
    assert model.histories is not None
    return replace(model, histories=replace(model.histories, **change))


EMPTY_HISTORIES = Histories(indptr=np.zeros(3, np.int64), item_rows=np.empty(0, np.int32))

REFUSED: list[tuple[type[Exception], Callable[[Model], Model], str]] = [
    (BadVectorsError, lambda model: with_item(model, np.nan), "2 item vectors that are NaN, infinite or zero: '상품-"),
    (BadVectorsError, lambda model: with_item(model, np.inf), "2 item vectors"),
    (BadVectorsError, lambda model: with_item(model, 0.0), "2 item vectors"),
    (BadVectorsError, lambda model: with_item(model, 1e-25), "2 item vectors"),
    (BadVectorsError, lambda model: with_item(model, 3e19), "2 item vectors"),
    (BadVectorsError, lambda model: with_user(model, np.nan), "1 user vectors that are NaN or infinite: '고객 "),
    (BadVectorsError, lambda model: with_user(model, -np.inf), "1 user vectors"),
    (BuildError, lambda model: with_prior(model, -0.1), "1 popularity that is negative or not finite: '상품-"),
    (BuildError, lambda model: with_prior(model, np.nan), "1 popularity"),
    (BuildError, lambda model: with_item_id(model, ""), "1 item ids are no ids: '' must not be empty"),
    (BuildError, lambda model: with_item_id(model, "가\udc00"), "lone surrogate"),
    (BuildError, lambda model: with_item_id(model, "\x1b[31m"), r"'\\x1b\[31m' must not hold a control character"),
    (
        DuplicateIdsError,
        lambda model: with_item_id(model, model.item_ids[9]),
        "1 item ids occur more than once: '상품-",
    ),
    (
        DuplicateIdsError,
        lambda model: replace(model, user_ids=["같은"] * 20),
        "1 user ids occur more than once: '같은'",
    ),
    (BuildError, lambda model: replace(model, item_ids=[], item_vectors=np.empty((0, 6), np.float32)), "not be empty"),
    (BuildError, lambda model: replace(model, item_ids=model.item_ids[1:]), r"item_vectors must have shape \(59, 6\)"),
    (BuildError, lambda model: replace(model, item_vectors=np.ones(60, np.float32)), r"item_vectors must have shape"),
    (BuildError, lambda model: replace(model, user_vectors=model.user_vectors[:, 1:]), "user_vectors must have shape"),
    (BuildError, lambda model: replace(model, popularity=model.popularity[1:]), "popularity must have shape"),
    (BuildError, lambda model: replace(model, histories=EMPTY_HISTORIES), "indptr must have shape"),
    (BuildError, lambda model: with_histories(model, indptr=np.arange(21)[::-1]), "indptr must rise"),
    (BuildError, lambda model: with_histories(model, item_rows=np.full(55, 60, np.int32)), "item_rows must be 0 to 59"),
    (BuildError, lambda model: replace(model, popularity_weight=np.nan), "popularity_weight must be finite"),
    (BuildError, lambda model: replace(model, likeness_exponent=1.1), "likeness_exponent must be 0 to 1, got 1.1"),
    (BuildError, lambda model: replace(model, recent_items_max=-1), "recent_items_max must be at least 0"),
    (BuildError, lambda model: replace(model, fold_in=replace(FOLD_IN, target=np.inf)), "fold_in must hold finite"),
    (BuildError, lambda model: replace(model, metrics={"recall": np.nan}), "must be JSON values"),
    (BuildError, lambda model: replace(model, parameters={"factors": np.int64(6)}), "must be JSON values"),
]


@pytest.mark.parametrize(("error", "change", "message"), REFUSED)
def test_an_unsound_model_is_refused_by_name_and_leaves_nothing_behind(
    store: SnapshotStore, error: type[Exception], change: Callable[[Model], Model], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        build_snapshot(change(make_model()), store, threads=1)

    assert caught.type is error
    assert store.ids() == []
    assert not list(store.root.glob(".building-*"))


def test_only_the_first_few_offenders_are_named(store: SnapshotStore) -> None:
    model = make_model(400)
    bad = replace(model, item_ids=["\n" * 300 + str(number) for number in range(400)])

    with pytest.raises(BuildError) as caught:
        build_snapshot(bad, store)

    assert "400 item ids" in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("recall", [0.0, 1.01, np.nan])
def test_a_recall_that_is_no_share_is_refused_before_anything_is_written(store: SnapshotStore, recall: float) -> None:
    with pytest.raises(InvalidArgumentError, match="recall_target"):
        build_snapshot(make_model(), store, recall_target=recall)
    with pytest.raises(InvalidArgumentError, match="accept_recall"):
        build_snapshot(make_model(), store, accept_recall=recall)
    with pytest.raises(InvalidArgumentError, match="threads"):
        build_snapshot(make_model(), store, threads=0)

    assert not store.root.exists()


def test_constants_may_be_numbers_of_numpy(store: SnapshotStore) -> None:
    numbers: dict[str, Any] = {"popularity_weight": np.float32(0.25), "recent_items_max": np.int64(7)}
    regularization: dict[str, Any] = {"regularization": np.float32(0.5)}
    model = replace(make_model(), fold_in=replace(FOLD_IN, **regularization), **numbers)

    snapshot = load_snapshot(build_snapshot(model, store, threads=1).path, cost=FIXED_COST)

    assert (snapshot.popularity_weight, snapshot.recent_items_max) == (0.25, 7)
    assert snapshot.fold_in == replace(FOLD_IN, regularization=0.5)


def test_a_target_no_graph_reaches_fails_unless_less_is_accepted(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = TuneSettings(ms=(4,), ef_construction=8, ef_searches=(10,), scan_us_max=0.0)
    monkeypatch.setattr("annserve.search.tune.TuneSettings", lambda: poor)
    model = make_model(1500, 200, dimension=24)

    with pytest.raises(RecallNotReachedError):
        build_snapshot(model, store, threads=1)
    assert store.ids() == []

    manifest = build_snapshot(model, store, threads=1, accept_recall=0.1).manifest

    assert manifest is not None
    assert manifest.spaces.affinity.recall < 0.98
    assert manifest.spaces.affinity.recall_target == 0.1


def test_where_no_graph_serves_exact_search_does(store: SnapshotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    poor = TuneSettings(ms=(2,), ef_construction=4, ef_searches=(10,), scan_us_max=1e9)
    monkeypatch.setattr("annserve.search.tune.TuneSettings", lambda: poor)
    info = build_snapshot(make_model(1500, 200, dimension=24), store, threads=1)

    snapshot = load_snapshot(info.path)

    assert not list(info.path.glob("*.hnsw"))
    assert snapshot.manifest.spaces.likeness.path is SearchPath.EXACT
    assert snapshot.manifest.spaces.likeness.recall == 1
    assert snapshot.likeness.search(np.ones(24, np.float32), 5).path is SearchPath.EXACT


def test_a_graph_that_was_saved_wrongly_is_found_before_it_is_published(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Graph.save

    def save_another(graph: Graph, path: Path) -> None:
        other = np.random.default_rng(9).standard_normal((graph.count, graph.dimension)).astype(np.float32)
        save(Graph.build(Points(vectors=other), graph.recipe), path)

    monkeypatch.setattr(Graph, "save", save_another)

    with pytest.raises(BuildError, match=r"cannot be loaded: .* recall"):
        build_snapshot(make_model(), store, threads=1)
    assert store.ids() == []


def test_progress_is_told_stage_by_stage(store: SnapshotStore) -> None:
    stages: dict[str, None] = {}

    build_snapshot(make_model(), store, threads=1, progress=lambda stage, _done, _total: stages.setdefault(stage))

    assert list(stages)[:2] == ["check", "write"]
    assert list(stages)[-2:] == ["seal", "load"]
    assert any(stage.startswith("likeness: ") for stage in stages)
