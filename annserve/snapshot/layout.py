"""Format 1: the files of a snapshot beside its manifest, and what each array in them must be."""

from __future__ import annotations

from annserve.domain.model import Space
from annserve.snapshot.files import ArrayHeader
from annserve.snapshot.manifest import Manifest

ITEM_IDS = "items/ids.marisa"
ITEM_VECTORS = "items/vectors.npy"
POPULARITY = "items/popularity.npy"
GRAM = "items/gram.npy"
"""``QᵀQ`` of the item vectors, summed in float64: what fold-in solves against."""
USER_IDS = "users/ids.marisa"
USER_VECTORS = "users/vectors.npy"
HISTORY_INDPTR = "users/history_indptr.npy"
HISTORY_ROWS = "users/history_rows.npy"
FOLDERS = ("items", "users", "checks")

CHECK_K = 10
"""How many rows each check query is known to have."""


def graph_name(space: Space) -> str:
    """Return the name of a space's graph file."""
    return f"{space.value}.hnsw"


def check_queries_name(space: Space) -> str:
    """Return the name of the queries whose exact answers are known."""
    return f"checks/{space.value}_queries.npy"


def check_rows_name(space: Space) -> str:
    """Return the name of those exact answers."""
    return f"checks/{space.value}_rows.npy"


CHECK_SEEDS = "checks/likeness_own_rows.npy"
"""The seed item that each check query of the likeness space was made of: it is not asked for."""


def expected_files(manifest: Manifest) -> set[str]:
    """Return the names of every file a snapshot with this manifest consists of."""
    graphs = {graph_name(space) for space in Space if manifest.spaces.of(space).recipe is not None}
    return {ITEM_IDS, USER_IDS} | graphs | set(expected_arrays(manifest))


def expected_arrays(manifest: Manifest) -> dict[str, ArrayHeader]:
    """Return the shape and type of every array of a snapshot with this manifest."""
    items, users = manifest.kinds.items, manifest.kinds.users
    arrays = {
        ITEM_VECTORS: ArrayHeader(shape=(items.count, items.dimension), dtype="<f4"),
        POPULARITY: ArrayHeader(shape=(items.count,), dtype="<f4"),
        GRAM: ArrayHeader(shape=(items.dimension, items.dimension), dtype="<f8"),
        USER_VECTORS: ArrayHeader(shape=(users.count, users.dimension), dtype="<f4"),
    }
    if manifest.history_item_count is not None:
        arrays[HISTORY_INDPTR] = ArrayHeader(shape=(users.count + 1,), dtype="<i8")
        arrays[HISTORY_ROWS] = ArrayHeader(shape=(manifest.history_item_count,), dtype="<i4")
    arrays[CHECK_SEEDS] = ArrayHeader(shape=(manifest.spaces.likeness.check_count,), dtype="<i4")
    for space in Space:
        check_count = manifest.spaces.of(space).check_count
        # The prior is one more dimension of an affinity query, and a seed is not like itself.
        dimension = items.dimension + (space is Space.AFFINITY)
        k = min(CHECK_K, items.count - (space is Space.LIKENESS))
        arrays[check_queries_name(space)] = ArrayHeader(shape=(check_count, dimension), dtype="<f4")
        arrays[check_rows_name(space)] = ArrayHeader(shape=(check_count, k), dtype="<i4")
    return arrays
