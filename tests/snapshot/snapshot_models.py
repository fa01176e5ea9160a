"""Small models to build snapshots of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annserve.domain.model import FoldInConstants, Histories, Model
from annserve.search.cost import CostModel

FOLD_IN = FoldInConstants(gram_weight=1.0, item_weight=39.0, target=40.0, regularization=0.1)
FIXED_COST = CostModel()


def make_model(item_count: int = 60, user_count: int = 20, dimension: int = 6, seed: int = 0) -> Model:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 6, user_count)
    return Model(
        # Neither order is the one a trie gives them.
        item_ids=[f"상품-{number:03d}" for number in rng.permutation(item_count)],
        item_vectors=rng.standard_normal((item_count, dimension)).astype(np.float32),
        user_ids=[f"고객 {number}" for number in rng.permutation(user_count)],
        user_vectors=rng.standard_normal((user_count, dimension)).astype(np.float32),
        popularity=rng.exponential(size=item_count).astype(np.float32),
        popularity_weight=0.5,
        likeness_exponent=0.75,
        recent_items_max=100,
        fold_in=FOLD_IN,
        histories=Histories(
            indptr=np.concatenate([[0], np.cumsum(lengths)]),
            item_rows=rng.integers(0, item_count, lengths.sum()).astype(np.int32),
        ),
        trainer="test",
        parameters={"factors": dimension},
        metrics={"recall@20": 0.25},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A model and the snapshot built of it."""

    model: Model
    path: Path
