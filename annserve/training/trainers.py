"""Library trainers of item vectors behind one port. Users are folded in afterwards, the same way for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from annserve.domain.arrays import Vectors
from annserve.domain.model import FoldInConstants
from annserve.domain.progress import Progress, no_progress

_SVD_TARGET = 1_000.0
"""Brings scores of unit singular vectors near 1, where people can read them; the order does not depend on it."""


class ItemTrainer(Protocol):
    """Fits item vectors to a confidence matrix."""

    @property
    def name(self) -> str:
        """What the manifest calls it."""
        ...

    @property
    def fold_in(self) -> FoldInConstants:
        """The system that gives a user's vector in the space of the item vectors."""
        ...

    def fit(self, confidences: sp.csr_array, *, threads: int, progress: Progress = no_progress) -> Vectors:
        """Return the item vectors, ``(items, d)``, for ``confidences`` of shape ``(users, items)``, entries above 0."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitALS:
    """Alternating least squares for implicit feedback, by the `implicit` library.

    Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.
    """

    factors: int
    alpha: float
    """What a confidence of 1 counts against the unobserved."""
    regularization: float
    fold_in_regularization: float
    """The regularisation of a user at fold-in: a user's few items want another than training does."""
    iterations: int
    seed: int

    name = "implicit-als"

    @property
    def fold_in(self) -> FoldInConstants:
        """The user's half of the alternation."""
        return FoldInConstants(
            gram_weight=1.0,
            item_weight=self.alpha - 1.0,
            target=self.alpha,
            regularization=self.fold_in_regularization,
        )

    def fit(self, confidences: sp.csr_array, *, threads: int, progress: Progress = no_progress) -> Vectors:
        """Return the item vectors; see `ItemTrainer.fit`."""

        def report(iteration: int, _seconds: float, _loss: float | None) -> None:
            progress("fitting", iteration + 1, self.iterations)

        # The library parallelises over users itself; BLAS threads below it only fight for the same cores.
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=self.factors,
                alpha=self.alpha,
                regularization=self.regularization,
                iterations=self.iterations,
                num_threads=threads,
                random_state=self.seed,
            )
            model.fit(sp.csr_matrix(confidences), show_progress=False, callback=report)
        return np.asarray(model.item_factors, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedSVD:
    """The leading right singular vectors of the scaled matrix, by SciPy's ARPACK.

    Cremonesi, Koren, Turrin, "Performance of recommender algorithms on top-N recommendation tasks", RecSys 2010
    (PureSVD), with singular values raised to an exponent as in Nikolakopoulos et al., "EigenRec", KAIS 2019. A user's
    vector is the weighted mean of item vectors, shrunk towards zero when there are few.
    """

    factors: int
    singular_exponent: float
    """Item vectors are ``v * (s / s[0]) ** singular_exponent``."""
    fold_in_shrinkage: float
    """Added to the number of items that the sum is divided by."""
    seed: int

    name = "truncated-svd"

    @property
    def fold_in(self) -> FoldInConstants:
        """A sum of item vectors divided by their number plus the shrinkage."""
        return FoldInConstants(
            gram_weight=0.0,
            item_weight=0.0,
            target=_SVD_TARGET,
            regularization=self.fold_in_shrinkage,
            regularization_per_item=1.0,
        )

    def fit(self, confidences: sp.csr_array, *, threads: int, progress: Progress = no_progress) -> Vectors:  # noqa: ARG002
        """Return the item vectors; see `ItemTrainer.fit`. One thread is as many as ARPACK has use for."""
        matrix = confidences.astype(np.float64)
        matrix.data = np.sqrt(matrix.data)
        progress("fitting", 0, 1)
        # Of many small products: with two threads it took 14.7 s instead of 2.9.
        with threadpool_limits(1, "blas"):
            _, singular, transposed = svds(matrix, k=self.factors, rng=np.random.default_rng(self.seed))
        order = np.argsort(-singular)
        scale: npt.NDArray[np.float64] = (singular[order] / singular[order][0]) ** self.singular_exponent
        progress("fitting", 1, 1)
        return np.ascontiguousarray(transposed[order].T * scale, dtype=np.float32)
