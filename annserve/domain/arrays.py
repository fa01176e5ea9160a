"""The array types that pass between rooms, and the one check every vector from outside must pass."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from annserve.domain.errors import InvalidArgumentError

Vectors: TypeAlias = npt.NDArray[np.float32]
"""float32; ``(n, d)`` for a kind's vectors, ``(d,)`` for one query, ``(q, d)`` for many."""

Scores: TypeAlias = npt.NDArray[np.float32]
"""float32, larger is better."""

Rows: TypeAlias = npt.NDArray[np.int64]
"""Row numbers of items or users in one snapshot."""


def checked_queries(queries: npt.ArrayLike, dimension: int, *, field: str = "query") -> Vectors:
    """Return ``queries`` as C-contiguous float32, of shape ``(dimension,)`` or ``(q, dimension)``.

    Raises:
        InvalidArgumentError: another shape, a type that is not a number, or an entry (or a squared
            norm) that float32 cannot hold: hnswlib checks none of these and answers garbage.
    """
    try:
        array = np.ascontiguousarray(queries, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError.of(field, "must be an array of numbers") from error
    if array.ndim not in (1, 2) or array.shape[-1] != dimension:
        raise InvalidArgumentError.of(field, f"must have {dimension} dimensions, got shape {array.shape}")
    # One dot product is finite only if every entry is, and if no squared norm overflows. `vdot` warns of neither.
    if not math.isfinite(np.vdot(array, array)):
        raise InvalidArgumentError.of(field, "must be finite, with a squared norm that float32 can hold")
    return array
