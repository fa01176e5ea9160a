from __future__ import annotations

from dataclasses import replace

import grown
import numpy as np
import pytest
from grown import grown_model

from annserve.domain.model import Model

ITEMS, USERS, DIMENSION = 200, 300, 8


def trained() -> Model:
    random = np.random.default_rng(0)
    users = random.standard_normal((USERS, DIMENSION)).astype(np.float32)
    users[::10] = 0.0  # No taste.
    return Model(
        item_ids=[f"i{number}" for number in range(ITEMS)],
        item_vectors=random.lognormal(0.0, 0.5, (ITEMS, 1)).astype(np.float32)
        * random.standard_normal((ITEMS, DIMENSION)).astype(np.float32),
        user_ids=[f"u{number}" for number in range(USERS)],
        user_vectors=users,
        popularity=random.exponential(1.0, ITEMS).astype(np.float32),
        popularity_weight=0.1,
        likeness_exponent=0.75,
        recent_items_max=100,
        trainer="trained",
    )


def test_the_trained_come_first_and_there_are_as_many_users_to_an_item() -> None:
    model = trained()

    large = grown_model(model, 10 * ITEMS)

    assert len(large.item_ids) == len(set(large.item_ids)) == len(large.item_vectors) == len(large.popularity) == 2_000
    assert len(large.user_ids) == len(set(large.user_ids)) == len(large.user_vectors) == 3_000
    np.testing.assert_array_equal(large.item_vectors[:ITEMS], model.item_vectors)
    np.testing.assert_array_equal(large.user_vectors[:USERS], model.user_vectors)
    np.testing.assert_array_equal(large.popularity[:ITEMS], model.popularity)


def test_the_grown_are_as_long_as_the_trained_and_lie_where_they_do() -> None:
    model = trained()

    large = grown_model(model, 20 * ITEMS)

    for small, wide in ((model.item_vectors, large.item_vectors), (model.user_vectors, large.user_vectors)):
        lengths = np.linalg.norm(small[small.any(axis=1)], axis=1)
        born = wide[len(small) :]
        assert np.isfinite(born).all()
        assert born.any(axis=1).all(), "who has no taste has no children"
        assert np.median(np.linalg.norm(born, axis=1)) == pytest.approx(np.median(lengths), rel=0.1)
        units = small[small.any(axis=1)] / lengths[:, None]
        nearest = (born / np.linalg.norm(born, axis=1, keepdims=True) @ units.T).max(axis=1)
        anywhere = np.random.default_rng(1).standard_normal(born.shape)
        anywhere /= np.linalg.norm(anywhere, axis=1, keepdims=True)
        assert np.median(nearest) > np.median((anywhere @ units.T).max(axis=1)) + 0.05


def test_fewer_items_than_were_trained_are_the_first_of_them() -> None:
    model = trained()

    small = grown_model(model, 50)

    np.testing.assert_array_equal(small.item_vectors, model.item_vectors[:50])
    assert (len(small.item_ids), len(small.user_ids)) == (50, 75)


def test_users_are_as_many_as_asked_for_or_no_more_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained()
    monkeypatch.setattr(grown, "USERS_MAX", 1_000)

    assert len(grown_model(model, 10 * ITEMS).user_ids) == 1_000
    assert len(grown_model(model, 10 * ITEMS, user_count=7).user_ids) == 7


def test_a_model_without_users_grows_none() -> None:
    model = trained()
    nobody = replace(model, user_ids=[], user_vectors=np.empty((0, DIMENSION), np.float32))

    assert len(grown_model(nobody, 2 * ITEMS).user_vectors) == 0
