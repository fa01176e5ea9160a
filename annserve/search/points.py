"""The items of one space as a search sees them: one shared matrix, and what turns it into that space's scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.domain.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """The items of one space. The score of row ``x`` for a query is one inner product::

        scale[x] * (vectors[x] @ query[:d]) + query[d] * bias[x]

    where a missing ``scale`` counts as 1 and a missing ``bias`` leaves the last term (and ``query[d]``) out.
    Nothing is copied: both spaces share one matrix, which may be memory-mapped.

    Raises:
        InvalidArgumentError: the arrays are not float32, or not of shapes ``(n, d)``, ``(n,)`` and ``(n,)``.
    """

    vectors: Vectors
    """``(n, d)``, by row or by column."""
    scale: Scores | None = None
    """``(n,)``: what an item's inner product is multiplied by."""
    bias: Scores | None = None
    """``(n,)``: an item's value in the dimension that only this space has."""

    def __post_init__(self) -> None:
        for field in ("vectors", "scale", "bias"):
            array = getattr(self, field)
            if array is not None:
                object.__setattr__(self, field, _read_only(array, field))
        if self.vectors.ndim != 2:
            raise InvalidArgumentError.of("vectors", f"must have shape (n, d), got {self.vectors.shape}")
        for field, values in (("scale", self.scale), ("bias", self.bias)):
            if values is not None and values.shape != (len(self),):
                raise InvalidArgumentError.of(field, f"must have shape ({len(self)},), got {values.shape}")

    @classmethod
    def affinity(cls, vectors: Vectors, popularity: Scores) -> Points:
        """Return the items as users meet them: inner product, the popularity prior one more dimension."""
        return cls(vectors=vectors, bias=popularity)

    @classmethod
    def likeness(cls, vectors: Vectors, exponent: float) -> Points:
        """Return the items as seeds meet them: the inner product divided by the item's norm to ``exponent``.

        Raises:
            InvalidArgumentError: a vector is zero, or so short or long that float32 cannot hold the quotient.
        """
        # float64 sums: the square of a norm below 1e-19 is zero in float32.
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        with np.errstate(divide="ignore", over="ignore"):
            scale = (norms**-exponent).astype(np.float32)
        if not (np.isfinite(scale) & (scale > 0)).all():
            raise InvalidArgumentError.of("vectors", "must be finite and not zero")
        return cls(vectors=vectors, scale=scale)

    def __len__(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def dimension(self) -> int:
        """The dimension of a query, which is that of a row of `matrix`."""
        return int(self.vectors.shape[1]) + (self.bias is not None)

    def scores(self, query: Vectors, rows: Rows | slice | None = None) -> Scores:
        """Return the scores of ``rows`` (all by default) for one query of shape ``(dimension,)``."""
        vectors, scale, bias = self.vectors, self.scale, self.bias
        if isinstance(rows, slice):
            vectors = vectors[rows]
            scale = None if scale is None else scale[rows]
            bias = None if bias is None else bias[rows]
        elif rows is not None:
            vectors = vectors.take(rows, axis=0)
            scale = None if scale is None else scale.take(rows)
            bias = None if bias is None else bias.take(rows)
        scores: Scores
        if bias is None:
            scores = vectors @ query
        else:
            scores = vectors @ query[:-1]
            scores += query[-1] * bias
        if scale is not None:
            scores *= scale
        return scores

    def scores_batch(self, queries: Vectors, rows: slice = slice(None)) -> Scores:
        """Return the scores of ``rows`` for many queries, shape ``(q, rows)``."""
        if self.bias is None:
            scores: Scores = queries @ self.vectors[rows].T
        else:
            scores = queries[:, :-1] @ self.vectors[rows].T
            scores += queries[:, -1:] * self.bias[rows]
        if self.scale is not None:
            scores *= self.scale[rows]
        return scores

    def scores_of_each(self, queries: Vectors, rows: Rows) -> Scores:
        """Return the scores of each query's own rows: ``rows`` has shape ``(q, k)``, and so has the result."""
        vectors = self.vectors.take(rows, axis=0)
        bare = queries if self.bias is None else np.ascontiguousarray(queries[:, :-1])
        scores: Scores = np.matmul(vectors, bare[:, :, None])[:, :, 0]
        if self.bias is not None:
            scores += queries[:, -1:] * self.bias.take(rows)
        if self.scale is not None:
            scores *= self.scale.take(rows)
        return scores

    def gather(self, rows: Rows, *, by_column: bool = False) -> Points:
        """Return a copy of some rows as points of their own, in the order given.

        Laid out ``by_column`` they are scored faster one query at a time: rows of a length that is no multiple of four
        cost up to half more than their columns (10,000 x 50: 56 us and 39 us).
        """
        vectors = self.vectors.take(rows, axis=0)
        return Points(
            vectors=np.asfortranarray(vectors) if by_column else vectors,
            scale=None if self.scale is None else self.scale.take(rows),
            bias=None if self.bias is None else self.bias.take(rows),
        )

    def matrix(self, rows: Rows | slice = slice(None)) -> Vectors:
        """Return ``(rows, dimension)`` vectors whose plain inner product with a query is the score.

        This is what a graph is built on; the result is a copy.
        """
        vectors = self.vectors[rows]
        if self.scale is not None:
            vectors = vectors * self.scale[rows, None]
        if self.bias is None:
            return np.array(vectors, dtype=np.float32)
        return np.column_stack([vectors, self.bias[rows]])

    def norms(self) -> Scores:
        """Return the norm of every row of `matrix`, ``(n,)``: what bounds an item's score for any query."""
        squares = np.einsum("ij,ij->i", self.vectors, self.vectors, dtype=np.float64)
        if self.scale is not None:
            squares *= np.square(self.scale, dtype=np.float64)
        if self.bias is not None:
            squares += np.square(self.bias, dtype=np.float64)
        norms: Scores = np.sqrt(squares).astype(np.float32)
        return norms


def _read_only(array: Vectors, field: str) -> Vectors:
    """Return a view that cannot be written, and that is no `np.memmap`, whose every slice costs a microsecond."""
    if array.dtype != np.float32:
        raise InvalidArgumentError.of(field, f"must be float32, got {array.dtype}")
    view = np.asarray(array).view()
    view.setflags(write=False)
    return view
