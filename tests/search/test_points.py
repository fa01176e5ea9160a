from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces import make_points, make_queries, make_vectors

from annserve.domain.errors import InvalidArgumentError
from annserve.domain.model import Space
from annserve.search.points import Points

SPACES = pytest.mark.parametrize("space", list(Space))


@SPACES
def test_scores_are_inner_products_of_the_materialised_matrix(space: Space) -> None:
    points = make_points(space, 50, 8)
    query = make_queries(points, 1)[0]

    assert points.matrix().shape == (50, points.dimension)
    np.testing.assert_allclose(points.scores(query), points.matrix() @ query, rtol=1e-5, atol=1e-6)


def test_affinity_is_the_inner_product_plus_the_weighted_prior() -> None:
    points = Points.affinity(np.array([[1, 2], [3, 4]], np.float32), np.array([10, 20], np.float32))

    assert points.dimension == 3
    assert points.scores(np.array([1, 1, 0.5], np.float32)).tolist() == [8.0, 17.0]


@given(exponent=st.floats(0, 1))
def test_likeness_divides_by_the_norm_to_the_exponent(exponent: float) -> None:
    points = Points.likeness(np.array([[3, 4], [0, 2]], np.float32), exponent)

    expected = [3 / 5**exponent, 0.0]
    np.testing.assert_allclose(points.scores(np.array([1, 0], np.float32)), expected, rtol=1e-6)


def test_likeness_with_exponent_one_is_the_cosine_even_of_very_short_vectors() -> None:
    points = Points.likeness(np.array([[3e-25, 4e-25]], np.float32), 1.0)

    np.testing.assert_allclose(points.scores(np.array([1, 0], np.float32)), [0.6], rtol=1e-5)


@SPACES
def test_every_way_of_scoring_agrees(space: Space) -> None:
    points = make_points(space, 40, 8)
    queries = make_queries(points, 3)
    rows = np.array([7, 3, 3, 39])
    whole = np.array([points.scores(query) for query in queries])

    np.testing.assert_allclose(points.scores_batch(queries), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(points.scores_batch(queries, slice(5, 9)), whole[:, 5:9], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(points.scores(queries[0], rows), whole[0, rows], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(points.scores(queries[0], slice(5, 9)), whole[0, 5:9], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(points.gather(rows).scores(queries[0]), whole[0, rows], rtol=1e-5, atol=1e-6)
    each = np.array([rows, rows[::-1], rows])
    np.testing.assert_allclose(
        points.scores_of_each(queries, each), np.take_along_axis(whole, each, axis=1), rtol=1e-5, atol=1e-6
    )


@SPACES
def test_norms_are_those_of_the_materialised_matrix(space: Space) -> None:
    points = make_points(space, 40, 8)

    np.testing.assert_allclose(points.norms(), np.linalg.norm(points.matrix(), axis=1), rtol=1e-5)


def test_points_share_the_matrix_and_cannot_write_to_it() -> None:
    vectors = make_vectors(10, 4)
    points = Points.likeness(vectors, 0.5)

    assert np.shares_memory(points.vectors, vectors)
    with pytest.raises(ValueError, match="read-only"):
        points.vectors[0] = 0
    vectors[0] = 1  # The owner's own array is left as it was.


@pytest.mark.parametrize(
    "vectors",
    [np.zeros((2, 2), np.float32), np.array([[np.nan, 1]], np.float32), np.array([[np.inf, 1]], np.float32)],
    ids=["zero", "nan", "inf"],
)
def test_likeness_refuses_vectors_without_a_direction(vectors: np.ndarray) -> None:
    with pytest.raises(InvalidArgumentError, match="vectors"):
        Points.likeness(vectors, 1.0)


def test_arrays_that_do_not_fit_are_refused() -> None:
    vectors = make_vectors(3, 2)
    with pytest.raises(InvalidArgumentError, match="bias"):
        Points.affinity(vectors, np.zeros(2, np.float32))
    with pytest.raises(InvalidArgumentError, match="float32"):
        Points(vectors=vectors.astype(np.float64))
    with pytest.raises(InvalidArgumentError, match="shape"):
        Points(vectors=vectors[0])
