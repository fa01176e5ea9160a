"""Fold-in: agrees with the library it stands in for, solves its system, refuses what cannot be solved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from annserve.domain.arrays import Vectors
from annserve.domain.errors import InputError, InvalidArgumentError
from annserve.domain.model import FoldInConstants, Histories
from annserve.snapshot.soundness import gram_matrix
from annserve.training.fold_in import FoldIn, implicit_constants

CATALOGUE: Vectors = np.random.default_rng(7).normal(0.0, 0.3, (60, 8)).astype(np.float32)
GRAM = gram_matrix(CATALOGUE)
COEFFICIENTS = st.floats(0.0, 50.0)
CONSTANTS = st.builds(
    FoldInConstants,
    gram_weight=COEFFICIENTS,
    item_weight=COEFFICIENTS,
    target=COEFFICIENTS,
    regularization=st.floats(0.01, 50.0),
    regularization_per_item=COEFFICIENTS,
)
ROWS = st.lists(st.integers(0, len(CATALOGUE) - 1), max_size=30)


@pytest.mark.parametrize(("alpha", "regularization", "factors"), [(1.0, 0.01, 16), (40.0, 0.1, 64), (10.0, 10.0, 128)])
def test_agrees_with_the_librarys_recalculate_user(alpha: float, regularization: float, factors: int) -> None:
    random = np.random.default_rng(3)
    users_items = sp.csr_matrix((random.random((200, 300)) < 0.1).astype(np.float32))
    # In float32 the library itself is off by up to 2e-5 here, so it is asked in float64.
    model = AlternatingLeastSquares(
        factors, regularization, alpha, dtype=np.float64, iterations=3, random_state=1, num_threads=1
    )
    with threadpool_limits(1, "blas"):
        model.fit(users_items, show_progress=False)
        theirs = model.recalculate_user(np.arange(50), users_items[:50])
    fold_in = FoldIn(gram_matrix(model.item_factors), implicit_constants(alpha, regularization))

    ours = [fold_in.user_vector(model.item_factors[users_items[user].indices]) for user in range(50)]

    assert np.abs(np.array(ours) - theirs).max() <= 5e-7


@given(constants=CONSTANTS, rows=ROWS, data=st.data())
def test_the_vector_solves_the_system(constants: FoldInConstants, rows: list[int], data: st.DataObject) -> None:
    items = CATALOGUE[rows]
    weights = data.draw(arrays(np.float64, len(rows), elements=st.floats(0.01, 100.0)))

    user = FoldIn(GRAM, constants).user_vector(items, weights).astype(np.float64)

    wide = items.astype(np.float64)
    system = constants.gram_weight * GRAM + constants.item_weight * (wide.T * weights) @ wide
    system += (constants.regularization + constants.regularization_per_item * len(rows)) * np.eye(8)
    right = constants.target * weights @ wide
    # Rounding the answer to float32 moves the left side by as much as this.
    allowed = 1e-6 * np.abs(system) @ np.abs(user) + 1e-9
    assert (np.abs(system @ user - right) <= allowed).all()


@given(constants=CONSTANTS, rows=ROWS)
def test_no_weights_are_weights_of_one_and_the_order_of_items_does_not_matter(
    constants: FoldInConstants, rows: list[int]
) -> None:
    fold_in = FoldIn(GRAM, constants)

    unweighted = fold_in.user_vector(CATALOGUE[rows])

    assert np.allclose(unweighted, fold_in.user_vector(CATALOGUE[rows], np.ones(len(rows))), rtol=1e-5, atol=1e-7)
    assert np.allclose(unweighted, fold_in.user_vector(CATALOGUE[rows[::-1]]), rtol=1e-5, atol=1e-7)


def test_an_item_of_weight_two_counts_as_the_item_twice() -> None:
    fold_in = FoldIn(GRAM, implicit_constants(10.0, 0.5))

    assert np.allclose(
        fold_in.user_vector(CATALOGUE[[3, 5]], [2.0, 1.0]), fold_in.user_vector(CATALOGUE[[3, 3, 5]]), rtol=1e-5
    )


def test_many_users_at_once_get_what_each_gets_alone_and_a_user_without_items_gets_zero() -> None:
    fold_in = FoldIn(GRAM, implicit_constants(10.0, 0.5))
    histories = Histories(indptr=np.array([0, 2, 2, 5]), item_rows=np.array([3, 5, 1, 1, 9], dtype=np.int32))
    weights = np.array([1.0, 2.0, 0.5, 3.0, 1.0])

    vectors = fold_in.user_vectors(CATALOGUE, histories, weights)

    assert vectors.dtype == np.float32
    assert np.array_equal(vectors[0], fold_in.user_vector(CATALOGUE[[3, 5]], weights[:2]))
    assert not vectors[1].any()
    assert np.array_equal(vectors[2], fold_in.user_vector(CATALOGUE[[1, 1, 9]], weights[2:]))


def test_folding_in_changes_none_of_its_inputs() -> None:
    gram, items, weights = GRAM.copy(), CATALOGUE[:9].copy(), np.full(9, 2.0)
    fold_in = FoldIn(gram, replace(implicit_constants(10.0, 0.5), regularization_per_item=1.0))

    first = fold_in.user_vector(items, weights)

    assert np.array_equal(first, fold_in.user_vector(items, weights))
    assert np.array_equal(gram, GRAM)
    assert np.array_equal(items, CATALOGUE[:9])
    assert (weights == 2.0).all()


def test_a_system_that_is_not_positive_definite_is_refused() -> None:
    fold_in = FoldIn(GRAM, implicit_constants(0.5, 0.0))

    with pytest.raises(InvalidArgumentError, match="not positive definite"):
        fold_in.user_vector(CATALOGUE, np.full(len(CATALOGUE), 1000.0))


def test_a_vector_beyond_float32_is_refused() -> None:
    constants = FoldInConstants(gram_weight=0.0, item_weight=0.0, target=1e30, regularization=1e-9)

    with pytest.raises(InvalidArgumentError, match="float32"):
        FoldIn(GRAM, constants).user_vector(CATALOGUE[:1])


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf], [[1.0, 1.0]]])
def test_weights_that_are_not_one_finite_positive_number_an_item_are_refused(weights: list[float]) -> None:
    with pytest.raises(InvalidArgumentError, match="weights"):
        FoldIn(GRAM, implicit_constants(10.0, 0.5)).user_vector(CATALOGUE[:2], weights)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(bad: float) -> None:
    items = CATALOGUE[:2].copy()
    items[1, 4] = bad

    with pytest.raises(InvalidArgumentError, match="must have finite vectors"):
        FoldIn(GRAM, implicit_constants(10.0, 0.5)).user_vector(items)


@pytest.mark.parametrize("shape", [(8,), (2, 7), (2, 9), (1, 2, 8)])
def test_vectors_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match="shape"):
        FoldIn(GRAM, implicit_constants(10.0, 0.5)).user_vector(np.zeros(shape, np.float32))


@pytest.mark.parametrize("name", ["gram_weight", "item_weight", "target", "regularization", "regularization_per_item"])
def test_constants_that_are_not_finite_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="finite"):
        FoldIn(GRAM, replace(implicit_constants(10.0, 0.5), **{name: np.nan}))


def test_negative_regularization_and_a_gram_matrix_that_is_no_finite_square_are_refused() -> None:
    with pytest.raises(InputError, match="at least 0"):
        FoldIn(GRAM, implicit_constants(10.0, -0.5))
    for gram in (GRAM[:3], np.full((8, 8), np.nan)):
        with pytest.raises(InputError, match="finite square"):
            FoldIn(gram, implicit_constants(10.0, 0.5))


def test_the_gram_matrix_is_summed_in_float64_over_every_block() -> None:
    vectors = np.random.default_rng(1).normal(size=(70_000, 3)).astype(np.float32)

    assert np.allclose(gram_matrix(vectors), vectors.astype(np.float64).T @ vectors.astype(np.float64), rtol=1e-12)
