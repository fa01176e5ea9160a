"""A user's vector from the items she had, exactly: the ridge system of `FoldInConstants`, solved by LAPACK.

For matrix factorisation of implicit feedback this is the user's half of one alternation (Hu, Koren, Volinsky,
"Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008), with the Gram matrix of all items computed once.
"""

from __future__ import annotations

import math
from dataclasses import astuple, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dposv

from annserve.domain.arrays import Vectors
from annserve.domain.errors import InputError, InvalidArgumentError
from annserve.domain.model import FoldInConstants, Histories

_SQUARED_NORM_MAX = float(np.finfo(np.float32).max)


_OPERATIONS_PER_US = 6_000.0
"""Measured at 64 dimensions; larger systems are solved up to three times as fast."""

_UNSOLVABLE = "cannot be folded in: with these weights and constants the system is not positive definite"
_OVERFLOW = "cannot be folded in: the user's vector would be more than float32 can hold"


def implicit_constants(alpha: float, regularization: float) -> FoldInConstants:
    """Return the constants of `implicit`'s ALS; with weights of 1 fold-in is then its ``recalculate_user``."""
    return FoldInConstants(
        gram_weight=1.0,
        item_weight=alpha - 1.0,
        target=alpha,
        regularization=regularization,
        regularization_per_item=0.0,
    )


def check_constants(constants: FoldInConstants) -> None:
    """Raise `InputError` unless all are finite and at least 0; `item_weight` may be less, as for an alpha below 1."""
    not_negative = replace(constants, item_weight=0.0)
    if not all(map(math.isfinite, astuple(constants))) or min(astuple(not_negative)) < 0:
        raise InputError(f"fold-in constants must be finite and, item_weight apart, at least 0; got {constants}")


class FoldIn:
    """Solves for user vectors in the space of one set of item vectors. Immutable; threads may share it."""

    def __init__(self, gram: npt.NDArray[np.float64], constants: FoldInConstants) -> None:
        """Prepare what all users share.

        Args:
            gram: `annserve.snapshot.soundness.gram_matrix` of all item vectors, ``(d, d)``.
            constants: Weights of the parts of the system.

        Raises:
            InputError: ``gram`` is not a finite square, or `check_constants`.
        """
        check_constants(constants)
        if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not np.isfinite(gram).all():
            raise InputError(f"the Gram matrix must be a finite square, got shape {gram.shape}")
        self._constants = constants
        self._dimension = len(gram)
        self._no_items = np.asfortranarray(
            constants.gram_weight * gram + constants.regularization * np.eye(self._dimension), dtype=np.float64
        )

    def user_vector(self, item_vectors: Vectors, weights: npt.ArrayLike | None = None) -> Vectors:
        """Return the vector of a user with these items, shape ``(d,)``.

        Cost is ``n d² / 2 + d³ / 6`` multiplications: some 25 us for 50 items at 64 dimensions, 80 us at 128.

        Args:
            item_vectors: ``(n, d)``; an item she had twice may be there twice. With ``n = 0`` the answer is zero.
            weights: ``(n,)``, above 0; how much each item counts. None counts each as 1.

        Raises:
            InvalidArgumentError: shapes do not match, something is not finite or not above 0, or the system has no
                single solution because it is not positive definite.
        """
        self._check_vectors(item_vectors)
        checked = None if weights is None else _checked_weights(weights, len(item_vectors))
        return self._solve(item_vectors, checked)

    def user_vectors(
        self, item_vectors: Vectors, histories: Histories, weights: npt.ArrayLike | None = None
    ) -> Vectors:
        """Return the vectors of many users, shape ``(users, d)``; zero for a user without items.

        Args:
            item_vectors: Of all items, ``(items, d)``.
            histories: The item rows of each user.
            weights: Parallel to ``histories.item_rows``, above 0. None counts each as 1.

        Raises:
            InvalidArgumentError: as `user_vector`.
        """
        self._check_vectors(item_vectors)
        checked = None if weights is None else _checked_weights(weights, len(histories.item_rows))
        vectors = np.zeros((len(histories.indptr) - 1, self._dimension), np.float32)
        bounds = histories.indptr.tolist()
        for user_row, (start, end) in enumerate(pairwise(bounds)):
            if start < end:
                own = item_vectors[histories.item_rows[start:end]]
                vectors[user_row] = self._solve(own, None if checked is None else checked[start:end])
        return vectors

    def estimated_us(self, item_count: int) -> float:
        """Return about how many microseconds `user_vector` takes for ``item_count`` items; seldom less."""
        operations = float(item_count * self._dimension)
        if self._constants.gram_weight or self._constants.item_weight:
            operations = item_count * self._dimension**2 / 2 + self._dimension**3 / 6
        return operations / _OPERATIONS_PER_US

    def _check_vectors(self, item_vectors: Vectors) -> None:
        if item_vectors.ndim != 2 or item_vectors.shape[1] != self._dimension:
            raise InvalidArgumentError.of(
                "recent_items", f"must have vectors of shape (n, {self._dimension}), got {item_vectors.shape}"
            )

    def _solve(self, item_vectors: Vectors, weights: npt.NDArray[np.float64] | None) -> Vectors:
        constants = self._constants
        vectors = item_vectors.astype(np.float64)
        if weights is None:
            right = vectors.sum(axis=0)
        else:
            right = weights @ vectors
            vectors *= np.sqrt(weights)[:, np.newaxis]
        right *= constants.target
        if constants.gram_weight == 0 and constants.item_weight == 0:
            return self._divided(right, len(vectors))
        # BLAS and LAPACK count by columns, so the transpose of our rows costs nothing, and only one triangle is used.
        system = dsyrk(constants.item_weight, vectors.T, beta=1.0, c=self._no_items, lower=1)
        if constants.regularization_per_item:
            system.T.reshape(-1)[:: self._dimension + 1] += constants.regularization_per_item * len(vectors)
        _, solution, failed_at = dposv(system, right, lower=1, overwrite_a=1, overwrite_b=1)
        # Written so that NaN fails it.
        if failed_at or not np.dot(solution, solution) < _SQUARED_NORM_MAX:
            raise InvalidArgumentError.of("recent_items", _why_unsolved(item_vectors, failed_at))
        user: Vectors = solution.astype(np.float32)
        return user

    def _divided(self, right: npt.NDArray[np.float64], item_count: int) -> Vectors:
        """Solve a system that is a multiple of the identity, which needs no LAPACK."""
        diagonal = self._constants.regularization + self._constants.regularization_per_item * item_count
        if not diagonal > 0:
            raise InvalidArgumentError.of("recent_items", _UNSOLVABLE)
        with np.errstate(over="ignore", invalid="ignore"):
            user: Vectors = (right / diagonal).astype(np.float32)
            if not math.isfinite(np.dot(user, user)):
                raise InvalidArgumentError.of("recent_items", _OVERFLOW)
        return user


def _checked_weights(weights: npt.ArrayLike, count: int) -> npt.NDArray[np.float64]:
    checked = np.asarray(weights, dtype=np.float64)
    if checked.shape != (count,):
        raise InvalidArgumentError.of("recent_items", f"must have {count} weights, got shape {checked.shape}")
    # NaN fails the first comparison.
    if count and not (checked.min() > 0 and checked.max() < math.inf):
        raise InvalidArgumentError.of("recent_items", "must have finite weights above 0")
    return checked


def _why_unsolved(item_vectors: Vectors, failed_at: int) -> str:
    if not np.isfinite(item_vectors).all():
        return "must have finite vectors"
    return _UNSOLVABLE if failed_at else _OVERFLOW
