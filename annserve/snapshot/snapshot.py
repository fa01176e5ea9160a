"""A snapshot as it is served: verified, memory-mapped, and proven on its own check queries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.domain.errors import InvalidArgumentError, NoSnapshotError, SnapshotRefusedError, SnapshotSchemaError
from annserve.domain.model import FoldInConstants, Histories, Space
from annserve.search.cost import CostModel
from annserve.search.graph import Graph
from annserve.search.index import SpaceIndex
from annserve.search.points import Points
from annserve.snapshot import layout
from annserve.snapshot.checks import check_recall
from annserve.snapshot.files import map_array
from annserve.snapshot.ids import IdIndex
from annserve.snapshot.manifest import Manifest
from annserve.snapshot.soundness import history_problem, is_gram_of, unsound_popularity, unsound_rows
from annserve.snapshot.store import SnapshotStore
from annserve.snapshot.verify import verify


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """One loaded snapshot. Nothing in it can be changed; threads share it, and children inherit it through a fork."""

    path: Path
    manifest: Manifest
    items: IdIndex
    users: IdIndex
    item_vectors: Vectors
    """``(n, d)``."""
    popularity: Scores
    """``(n,)``, at least 0."""
    popular_rows: Rows
    """``(n,)``: every item's row by falling popularity, ties in order of row."""
    gram: npt.NDArray[np.float64]
    """``(d, d)``: ``QᵀQ`` of `item_vectors`."""
    user_vectors: Vectors
    """``(m, d)``; ``m`` may be 0, and a user's vector may be zero."""
    histories: Histories | None
    affinity: SpaceIndex
    likeness: SpaceIndex

    @property
    def id(self) -> str:
        """The snapshot's id."""
        return self.manifest.snapshot_id

    @property
    def fold_in(self) -> FoldInConstants | None:
        """See `annserve.domain.model.Model.fold_in`."""
        return self.manifest.constants.fold_in

    @property
    def popularity_weight(self) -> float:
        """See `annserve.domain.model.Model.popularity_weight`."""
        return self.manifest.constants.popularity_weight

    @property
    def likeness_exponent(self) -> float:
        """See `annserve.domain.model.Model.likeness_exponent`."""
        return self.manifest.constants.likeness_exponent

    @property
    def recent_items_max(self) -> int:
        """See `annserve.domain.model.Model.recent_items_max`."""
        return self.manifest.constants.recent_items_max


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The snapshot to serve, and why better choices are not it."""

    snapshot: Snapshot
    refusals: tuple[SnapshotRefusedError, ...]
    """Empty when the live snapshot itself was loaded."""


def load_current(store: SnapshotStore, *, cost: CostModel | None = None) -> Loaded:
    """Load the live snapshot, or if it is refused the one live before it, or else the newest that is sound.

    Raises:
        NoSnapshotError: none was ever activated, or none can be loaded.
    """
    pointer = store.root / "CURRENT"
    if not pointer.exists():
        raise NoSnapshotError(
            f"no snapshot is active in {store.root}; `annserve train` makes one, with --demo of the bundled data",
            root=store.root,
        )
    history = store.history()
    refusals = [] if history else [SnapshotRefusedError(pointer, "names no snapshot")]
    for snapshot_id in dict.fromkeys((*history, *store.ids())):
        try:
            snapshot = load_snapshot(store.path(snapshot_id), cost=cost)
            if snapshot.id != snapshot_id:
                raise SnapshotSchemaError(snapshot.path, f"it calls itself {snapshot.id}")
        except SnapshotRefusedError as error:
            refusals.append(error)
        else:
            return Loaded(snapshot=snapshot, refusals=tuple(refusals))
    raise NoSnapshotError(f"none of the snapshots in {store.root} can be loaded: {refusals[0]}", root=store.root)


def load_snapshot(path: Path, *, cost: CostModel | None = None) -> Snapshot:
    """Verify the snapshot at ``path``, map it, and make it answer its check queries.

    Args:
        path: Its folder, which must not change while the snapshot is in use: a file that is cut short under its
            mapping kills the process.
        cost: What a search costs, for both spaces; measured when not given.

    Raises:
        SnapshotRefusedError: it must not be served, as `annserve.snapshot.verify.verify` says; and
            SnapshotSchemaError, what its files hold contradicts the manifest; SnapshotRecallError, a graph does
            not answer as it did when it was built.
    """
    manifest = verify(path)
    try:
        return _loaded(path, manifest, cost)
    except (ValueError, InvalidArgumentError) as error:
        raise SnapshotSchemaError(path, str(error)) from error
    except OSError as error:  # Pruned under our eyes, say.
        raise SnapshotRefusedError(path, f"cannot be read: {error}") from error


def _loaded(path: Path, manifest: Manifest, cost: CostModel | None) -> Snapshot:
    """Load what `verify` found to be whole."""
    items, users = IdIndex(path / layout.ITEM_IDS), IdIndex(path / layout.USER_IDS)
    vectors: Vectors = map_array(path / layout.ITEM_VECTORS)
    popularity: Scores = map_array(path / layout.POPULARITY)
    gram: npt.NDArray[np.float64] = map_array(path / layout.GRAM)
    user_vectors: Vectors = map_array(path / layout.USER_VECTORS)
    histories = map_histories(path) if manifest.history_item_count is not None else None
    _check_contents(path, items, users, vectors, popularity, gram, user_vectors, histories)
    affinity = Points.affinity(vectors, popularity)
    likeness = Points.likeness(vectors, manifest.constants.likeness_exponent)
    popular_rows = np.argsort(-popularity, kind="stable")
    popular_rows.setflags(write=False)
    return Snapshot(
        path=path,
        manifest=manifest,
        items=items,
        users=users,
        item_vectors=vectors,
        popularity=popularity,
        popular_rows=popular_rows,
        gram=gram,
        user_vectors=user_vectors,
        histories=histories,
        affinity=_loaded_space(path, manifest, Space.AFFINITY, affinity, cost),
        likeness=_loaded_space(path, manifest, Space.LIKENESS, likeness, cost),
    )


def map_histories(path: Path) -> Histories:
    """Map the histories of a snapshot that has some."""
    return Histories(indptr=map_array(path / layout.HISTORY_INDPTR), item_rows=map_array(path / layout.HISTORY_ROWS))


def _check_contents(
    path: Path,
    items: IdIndex,
    users: IdIndex,
    vectors: Vectors,
    popularity: Scores,
    gram: npt.NDArray[np.float64],
    user_vectors: Vectors,
    histories: Histories | None,
) -> None:
    """Look at what no checksum proves: a build that was wrong, or a manifest that was made to fit."""
    if (len(items), len(users)) != (len(vectors), len(user_vectors)):
        raise SnapshotSchemaError(path, "there are not as many ids as vectors")
    if len(unsound_rows(vectors, zero_allowed=False)) or len(unsound_rows(user_vectors, zero_allowed=True)):
        raise SnapshotSchemaError(path, "vectors: some are NaN, infinite or zero")
    if len(unsound_popularity(popularity)):
        raise SnapshotSchemaError(path, "popularity: some is negative or not finite")
    if not is_gram_of(gram, vectors):
        raise SnapshotSchemaError(path, "gram: is not that of the item vectors")
    if histories is not None:
        problem = history_problem(histories, user_count=len(user_vectors), item_count=len(vectors))
        if problem is not None:
            raise SnapshotSchemaError(path, problem)


def _loaded_space(path: Path, manifest: Manifest, space: Space, points: Points, cost: CostModel | None) -> SpaceIndex:
    entry = manifest.spaces.of(space)
    graph = None
    if entry.recipe is not None:
        try:
            graph = Graph.load(
                path / layout.graph_name(space), entry.recipe, count=len(points), dimension=points.dimension
            )
        except RuntimeError as error:
            raise SnapshotSchemaError(path, f"{layout.graph_name(space)}: {error}") from error
    check_recall(path, space, entry, points, graph)
    return SpaceIndex(points, graph, bands=entry.bands, cost=cost, recall_target=entry.recall_target)
