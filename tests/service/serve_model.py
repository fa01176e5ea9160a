"""A small random model, and a program that serves the snapshot of it in a folder by a transport; writes the address."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from annserve.domain.model import FoldInConstants, Histories, Model
from annserve.engine.plain_recommender import PlainRecommender
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench
from annserve.service.server import Served, serve
from annserve.service.settings import ServerSettings
from annserve.snapshot.snapshot import load_snapshot

ITEM_COUNT, USER_COUNT, DIMENSION, HISTORY_COUNT = 600, 20, 8, 5


def model() -> Model:
    """Return vectors that mean nothing, with every part a snapshot can have."""
    random = np.random.default_rng(7)
    return Model(
        item_ids=[f"상품-{number}" if number % 2 else f"item-{number}" for number in range(ITEM_COUNT)],
        item_vectors=random.normal(size=(ITEM_COUNT, DIMENSION)).astype(np.float32),
        user_ids=[f"user-{number}" for number in range(USER_COUNT)],
        user_vectors=random.normal(size=(USER_COUNT, DIMENSION)).astype(np.float32),
        popularity=random.random(ITEM_COUNT).astype(np.float32),
        popularity_weight=0.3,
        likeness_exponent=0.5,
        recent_items_max=100,
        fold_in=FoldInConstants(gram_weight=1.0, item_weight=39.0, target=40.0, regularization=0.1),
        histories=Histories(
            indptr=np.arange(USER_COUNT + 1, dtype=np.int64) * HISTORY_COUNT,
            item_rows=random.integers(0, ITEM_COUNT, USER_COUNT * HISTORY_COUNT).astype(np.int32),
        ),
        trainer="random",
    )


def _tell(address: str) -> None:
    sys.stdout.write(address + "\n")
    sys.stdout.flush()


def main() -> None:
    recommender = SnapshotRecommender(load_snapshot(Path(sys.argv[1])))
    plain = PlainRecommender(recommender, Workbench(ThreadPoolExecutor(2)))
    settings = ServerSettings(address="127.0.0.1:0", transport=sys.argv[2])  # type: ignore[arg-type]
    serve(settings, nullcontext(Served(recommender=plain)), _tell)


if __name__ == "__main__":
    main()
