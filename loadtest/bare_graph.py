"""A snapshot's likeness graph as hnswlib alone has it: what a server that only searches would hold."""

from __future__ import annotations

from typing import Any

import hnswlib
import numpy as np

from annserve.domain.arrays import Vectors
from annserve.domain.model import Space
from annserve.search.recipe import Reduction
from annserve.snapshot.layout import graph_name
from annserve.snapshot.snapshot import Snapshot


def bare_graph(snapshot: Snapshot) -> tuple[Any, Vectors] | None:
    """Return the index, and for each row the query that asks what is like it; None where exact search serves."""
    recipe = snapshot.manifest.spaces.likeness.recipe
    if recipe is None:
        return None
    augmented = recipe.reduction is Reduction.AUGMENTED_L2
    vectors = np.asarray(snapshot.item_vectors)
    queries = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if augmented:
        queries = np.hstack([queries, np.zeros((len(queries), 1), np.float32)])
    index = hnswlib.Index(space="l2" if augmented else "ip", dim=queries.shape[1])
    index.load_index(str(snapshot.path / graph_name(Space.LIKENESS)))
    index.set_ef(recipe.ef_search)
    index.set_num_threads(1)
    return index, queries
