"""Check queries: questions whose exact answers a snapshot carries, so that a load can prove its graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annserve.domain.arrays import Rows, Vectors
from annserve.domain.errors import SnapshotRecallError, SnapshotSchemaError
from annserve.domain.model import Space
from annserve.search.exact import exact_top_k_batch
from annserve.search.graph import Graph
from annserve.search.points import Points
from annserve.search.recall import recall_of, without_own
from annserve.snapshot import layout
from annserve.snapshot.files import ArrayHeader, map_array, write_array
from annserve.snapshot.manifest import SpaceEntry

_RECALL_SLACK = 0.01
"""What rounding on another processor may cost: the same graph then takes another turn here and there."""


def write_checks(folder: Path, space: Space, points: Points, queries: Vectors, own_rows: Rows | None) -> None:
    """Write ``queries``, ``(q, dimension)``, and the rows of their exact top 10, each query's own row left out."""
    arrays: dict[str, tuple[npt.NDArray[Any], str]] = {
        layout.check_queries_name(space): (queries, "<f4"),
        layout.check_rows_name(space): (_exact(points, queries, own_rows), "<i4"),
    }
    if own_rows is not None:
        arrays[layout.CHECK_SEEDS] = (own_rows, "<i4")
    for name, (array, dtype) in arrays.items():
        write_array(folder / name, ArrayHeader(shape=array.shape, dtype=dtype), [array])


def measured_recall(folder: Path, space: Space, points: Points, graph: Graph | None) -> float:
    """Return the recall@10 of ``graph``, or of exact search where there is none, on a space's check queries.

    Raises:
        SnapshotSchemaError: the check queries are no such queries, or their answers no rows.
    """
    queries: Vectors = map_array(folder / layout.check_queries_name(space))
    exact: Rows = map_array(folder / layout.check_rows_name(space)).astype(np.int64)
    own_rows: Rows | None = None
    if space is Space.LIKENESS:
        own_rows = map_array(folder / layout.CHECK_SEEDS).astype(np.int64)
    if not np.isfinite(queries).all() or (exact.size and not 0 <= exact.min() <= exact.max() < len(points)):
        raise SnapshotSchemaError(folder, f"{space.value}: the check queries or their rows are out of range")
    if graph is None:
        found = _exact(points, queries, own_rows)
    else:
        ranked = graph.search(queries, _asked(points, own_rows))
        if ranked is None:
            return 0.0
        found = without_own(ranked, own_rows, layout.CHECK_K)
    return recall_of(points, queries, exact, found)


def check_recall(folder: Path, space: Space, entry: SpaceEntry, points: Points, graph: Graph | None) -> None:
    """Make a space that was just loaded answer its check queries as it did when it was built.

    Raises:
        SnapshotRecallError: it does not.
        SnapshotSchemaError: as `measured_recall`.
    """
    recall = measured_recall(folder, space, points, graph)
    if recall < entry.check_recall - _RECALL_SLACK:
        raise SnapshotRecallError(
            folder, f"{space.value}: recall@10 is {recall:.4f} on the check queries, was {entry.check_recall:.4f}"
        )


def _exact(points: Points, queries: Vectors, own_rows: Rows | None) -> Rows:
    ranked, _ = exact_top_k_batch(points, queries, _asked(points, own_rows))
    return without_own(ranked, own_rows, layout.CHECK_K)


def _asked(points: Points, own_rows: Rows | None) -> int:
    return min(layout.CHECK_K + (own_rows is not None), len(points))
