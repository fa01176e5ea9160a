from __future__ import annotations

import numpy as np

from annserve.domain.model import Histories
from annserve.snapshot.queries import likeness_queries

ITEMS = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
UNITS = ITEMS / np.linalg.norm(ITEMS, axis=1, keepdims=True)


def test_seeds_are_asked_for_alone_and_in_baskets_that_one_user_had() -> None:
    # User 0 had one item, which makes no basket; user 1 had three.
    histories = Histories(
        indptr=np.array([0, 1, 4], dtype=np.int64), item_rows=np.array([9, 20, 21, 22], dtype=np.int32)
    )

    queries, rows = likeness_queries(ITEMS, histories, seed=0)

    alone = np.isclose(np.linalg.norm(queries, axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(alone, np.arange(len(rows)) % 4 < 2)
    np.testing.assert_allclose(queries[alone], UNITS[rows[alone]], atol=1e-6)
    assert set(rows[~alone]) == {20, 21, 22}
    means = [UNITS[list(basket)].mean(axis=0) for basket in ((20, 21), (20, 22), (21, 22), (20, 21, 22))]
    assert all(min(np.abs(query - mean).max() for mean in means) < 1e-6 for query in queries[~alone])


def test_without_histories_every_seed_is_asked_for_alone() -> None:
    queries, rows = likeness_queries(ITEMS, None, seed=0)

    np.testing.assert_allclose(queries, UNITS[rows], atol=1e-6)
    assert len(set(rows.tolist())) == len(rows)
