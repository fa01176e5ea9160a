"""From a model to a published snapshot: written, searched for its recipes, sealed, loaded once, renamed."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from annserve import __version__
from annserve.domain.arrays import Vectors
from annserve.domain.errors import BuildError, InvalidArgumentError, SnapshotRefusedError
from annserve.domain.model import FoldInConstants, Model, Space
from annserve.domain.progress import Progress, no_progress
from annserve.domain.query import SearchPath
from annserve.search.cost import CostModel
from annserve.search.points import Points
from annserve.search.tune import tune
from annserve.snapshot import layout
from annserve.snapshot.checks import measured_recall, write_checks
from annserve.snapshot.contents import check_model, json_value, write_contents
from annserve.snapshot.files import map_array, sha256, sync
from annserve.snapshot.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Constants,
    FileEntry,
    KindEntry,
    Kinds,
    Manifest,
    SpaceEntry,
    Spaces,
    Training,
    sha256_of,
)
from annserve.snapshot.queries import affinity_queries, likeness_queries
from annserve.snapshot.snapshot import load_snapshot, map_histories
from annserve.snapshot.store import SnapshotInfo, SnapshotStore

_CHECKS_MAX = 256


def build_snapshot(
    model: Model,
    store: SnapshotStore,
    *,
    recall_target: float = 0.98,
    accept_recall: float | None = None,
    threads: int | None = None,
    seed: int = 0,
    activate: bool = True,
    progress: Progress = no_progress,
) -> SnapshotInfo:
    """Build a snapshot of ``model`` and publish it in ``store``.

    Nothing is published that was not written in full, made durable, and loaded from the disk with its check queries
    answered. Whatever fails before that, the store is as it was, and what was written is removed: at once, or if
    the process was killed by the next build.

    Args:
        model: What training made. Its vectors are read in chunks and never copied whole.
        store: Where to.
        recall_target: The recall@10 the graphs must reach, above 0, at most 1.
        accept_recall: A lower recall to put up with when they cannot.
        threads: How many build; None for one a core. More than 1 makes graphs differ from run to run.
        seed: Of the queries, the samples and the graphs.
        activate: Whether the new snapshot becomes the live one.
        progress: Told how far it is.

    Raises:
        BadVectorsError, DuplicateIdsError, BuildError: the model is not sound; the message names the first few ids.
        RecallNotReachedError: no graph reached the target, and exact search would be too slow.
        InvalidArgumentError: an option is outside what is stated above.
        OSError: the disk is full or fails.
    """
    options = _Options(
        recall_target=recall_target,
        accept_recall=recall_target if accept_recall is None else accept_recall,
        threads=(os.cpu_count() or 1) if threads is None else threads,
        seed=seed,
    )
    progress("check", 0, None)
    check_model(model)
    with store.draft() as folder:
        progress("write", 0, None)
        write_contents(model, folder)
        spaces = Spaces(
            affinity=_built_space(Space.AFFINITY, model, folder, options, progress),
            likeness=_built_space(Space.LIKENESS, model, folder, options, progress),
        )
        progress("seal", 0, None)
        manifest = _sealed(model, store, folder, spaces)
        progress("load", 0, None)
        try:
            load_snapshot(folder, cost=CostModel())
        except SnapshotRefusedError as error:
            raise BuildError(f"the snapshot that was built cannot be loaded: {error}") from error
        store.publish(folder, manifest.snapshot_id, activate=activate)
    return store.info(manifest.snapshot_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    recall_target: float
    accept_recall: float
    threads: int
    seed: int

    def __post_init__(self) -> None:
        # Here, because a build may run for an hour before anything else looks at them.
        for field in ("recall_target", "accept_recall"):
            if not 0 < getattr(self, field) <= 1:
                raise InvalidArgumentError.of(field, f"must be above 0 and at most 1, got {getattr(self, field)}")
        if self.threads < 1:
            raise InvalidArgumentError.of("threads", f"must be at least 1, got {self.threads}")


def _built_space(space: Space, model: Model, folder: Path, options: _Options, progress: Progress) -> SpaceEntry:
    """Tune, save and prove one space. Its graph is dropped before the next space's is built."""
    vectors: Vectors = map_array(folder / layout.ITEM_VECTORS)
    if space is Space.AFFINITY:
        points = Points.affinity(vectors, map_array(folder / layout.POPULARITY))
        users: Vectors = map_array(folder / layout.USER_VECTORS)
        own_rows = None
        queries = affinity_queries(users, vectors, model.popularity_weight, seed=options.seed)
    else:
        points = Points.likeness(vectors, model.likeness_exponent)
        histories = map_histories(folder) if model.histories is not None else None
        queries, own_rows = likeness_queries(vectors, histories, seed=options.seed)
    tuned = tune(
        points,
        queries,
        own_rows=own_rows,
        target=options.recall_target,
        accept_recall=options.accept_recall,
        threads=options.threads,
        seed=options.seed,
        progress=lambda stage, done, total: progress(f"{space.value}: {stage}", done, total),
    )
    if tuned.graph is not None:
        tuned.graph.save(folder / layout.graph_name(space))
    # From the half that tuning confirmed with: these chose nothing.
    checks = slice(1, 2 * _CHECKS_MAX, 2)
    write_checks(folder, space, points, queries[checks], None if own_rows is None else own_rows[checks])
    return SpaceEntry(
        path=SearchPath.EXACT if tuned.graph is None else SearchPath.HNSW,
        recipe=None if tuned.graph is None else tuned.graph.recipe,
        recall_target=options.recall_target if tuned.recall >= options.recall_target else options.accept_recall,
        recall=tuned.recall,
        check_count=len(queries[checks]),
        check_recall=round(measured_recall(folder, space, points, tuned.graph), 4),
        bands=tuned.bands,
        trials=[json_value(asdict(trial)) for trial in tuned.trials],
    )


def _sealed(model: Model, store: SnapshotStore, folder: Path, spaces: Spaces) -> Manifest:
    """Make every file durable and read-only, and write the manifest that describes them, last."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    entries = {name: _sealed_file(path) for name, path in files.items()}
    created_time = datetime.now(UTC).replace(microsecond=0)
    dimension = model.item_vectors.shape[1]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        snapshot_id=store.new_id(sha256_of({name: entry.sha256 for name, entry in entries.items()}), created_time),
        created_time=created_time,
        created_by=__version__,
        kinds=Kinds(
            items=KindEntry(count=len(model.item_ids), dimension=dimension),
            users=KindEntry(count=len(model.user_ids), dimension=dimension),
        ),
        history_item_count=None if model.histories is None else len(model.histories.item_rows),
        spaces=spaces,
        constants=Constants(
            # Numbers of numpy's are no JSON.
            popularity_weight=float(model.popularity_weight),
            likeness_exponent=float(model.likeness_exponent),
            recent_items_max=int(model.recent_items_max),
            fold_in=None if model.fold_in is None else _plain(model.fold_in),
        ),
        training=Training(trainer=model.trainer, parameters=json_value(model.parameters)),
        metrics=json_value(model.metrics),
        files=entries,
    )
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    _sealed_file(folder / MANIFEST)
    for path in (*(folder / name for name in layout.FOLDERS), folder):
        sync(path)
    return manifest


def _plain(constants: FoldInConstants) -> FoldInConstants:
    return FoldInConstants(**{name: float(value) for name, value in asdict(constants).items()})


def _sealed_file(path: Path) -> FileEntry:
    path.chmod(0o444)
    sync(path)
    return FileEntry(size_bytes=path.stat().st_size, sha256=sha256(path))
