from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from annserve.domain.model import FoldInConstants, Histories, Model
from annserve.engine.recommender import SnapshotRecommender
from annserve.search.cost import CostModel
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import Snapshot, load_snapshot
from annserve.snapshot.store import SnapshotStore

ITEMS, USERS, DIMENSION, HISTORY = 3_000, 50, 16, 20
FOLD_IN = FoldInConstants(gram_weight=1.0, item_weight=9.0, target=10.0, regularization=5.0)

GRAPH_IS_CHEAP = CostModel(exact_us=1e6)
"""By which the graph is asked wherever it is trusted, whatever machine runs the tests."""


def loaded(folder: Path, fold_in: FoldInConstants | None) -> Snapshot:
    """Build and load a snapshot of random vectors, the same every time."""
    rng = np.random.default_rng(0)
    histories = [np.sort(rng.choice(ITEMS, HISTORY, replace=False)) for _ in range(USERS)]
    model = Model(
        item_ids=[f"작품-{number}" for number in range(ITEMS)],
        item_vectors=rng.normal(size=(ITEMS, DIMENSION)).astype(np.float32),
        user_ids=[f"user-{number}" for number in range(USERS)],
        user_vectors=rng.normal(size=(USERS, DIMENSION)).astype(np.float32),
        popularity=np.log1p(10 * rng.pareto(1.0, ITEMS)).astype(np.float32),
        popularity_weight=0.3,
        likeness_exponent=0.75,
        recent_items_max=10,
        fold_in=fold_in,
        histories=Histories(
            indptr=np.arange(0, HISTORY * USERS + 1, HISTORY, dtype=np.int64),
            item_rows=np.concatenate(histories).astype(np.int32),
        ),
        trainer="random",
    )
    info = build_snapshot(model, SnapshotStore(folder), threads=1)
    return load_snapshot(info.path, cost=GRAPH_IS_CHEAP)


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return loaded(tmp_path_factory.mktemp("snapshots"), FOLD_IN)


@pytest.fixture(scope="session")
def recommender(snapshot: Snapshot) -> SnapshotRecommender:
    return SnapshotRecommender(snapshot)


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> SnapshotRecommender:
    """Answers from vectors without fold-in constants."""
    return SnapshotRecommender(loaded(tmp_path_factory.mktemp("imported"), None))
