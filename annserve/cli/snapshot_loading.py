"""The loader's process: it loads a snapshot and forks the workers that share it."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TypeAlias

import psutil

from annserve.cli.background import LOADING_NICENESS, in_background
from annserve.cli.child_program import begun
from annserve.cli.working import import_parts, work
from annserve.domain.errors import AnnserveError, SnapshotRefusedError
from annserve.settings import Settings
from annserve.snapshot.snapshot import Snapshot, load_current, load_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve.supervisor.cgroups import cgroup_limits
from annserve.supervisor.loader import Loader, LoadRefusedError
from annserve.supervisor.messages import Message
from annserve.supervisor.orders import LoaderOrders

SnapshotLoader: TypeAlias = Loader[Snapshot]

_HEADROOM = 1.25
"""What loading takes beyond the size of the files, at most: graphs are copied into memory, ids and vectors mapped."""


def snapshot_loader() -> SnapshotLoader:
    """Return the loader that this process is to be."""
    orders, settings = begun(LoaderOrders, "loader")

    def load(orders: LoaderOrders) -> tuple[Snapshot, Message]:
        # The workers of another snapshot may be answering meanwhile.
        snapshot = in_background(lambda: _prepared(settings, orders.snapshot_id), LOADING_NICENESS)
        report = {
            "snapshot_id": snapshot.id,
            "items": len(snapshot.items),
            "users": len(snapshot.users),
            "created_seconds": snapshot.manifest.created_time.timestamp(),
        }
        return snapshot, report

    return Loader(orders, load, lambda snapshot, post: work(snapshot, post, settings))


def _prepared(settings: Settings, snapshot_id: str | None) -> Snapshot:
    snapshot = _loaded(SnapshotStore(settings.snapshots), snapshot_id)
    import_parts(settings)
    # What is here now is shared, and is looked through once, here.
    gc.collect()
    return snapshot


def _loaded(store: SnapshotStore, snapshot_id: str | None) -> Snapshot:
    try:
        if snapshot_id is None:
            loaded = load_current(store)
            for refusal in loaded.refusals:
                sys.stderr.write(f"annserve: refused: {refusal}\n")
            return loaded.snapshot
        path = store.path(snapshot_id)
        _refuse_beyond_memory(path)
        return load_snapshot(path)
    except SnapshotRefusedError as refusal:
        raise LoadRefusedError(refusal.reason, refusal.problem) from refusal
    except AnnserveError as error:
        raise LoadRefusedError(error.reason, str(error)) from error


def _refuse_beyond_memory(path: Path) -> None:
    """Refuse a snapshot that would not fit beside what runs now, before any of it is read."""
    needed = int(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) * _HEADROOM)
    free = psutil.virtual_memory().available
    in_group = cgroup_limits().memory_free_bytes
    free = free if in_group is None else min(free, in_group)
    if needed > free:
        raise LoadRefusedError("MEMORY", f"it needs about {needed:,} bytes of memory, {free:,} are free")
