"""The loader's process: it loads a snapshot and forks the workers that share it."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from annserve.cli.background import LOADING_NICENESS, in_background
from annserve.cli.child_program import begun
from annserve.cli.working import work
from annserve.domain.errors import AnnserveError, SnapshotRefusedError
from annserve.snapshot.snapshot import Snapshot, load_current, load_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve.supervisor.cgroups import cgroup_limits
from annserve.supervisor.loader import Loader, LoadRefusedError
from annserve.supervisor.messages import Message
from annserve.supervisor.orders import LoaderOrders

_HEADROOM = 1.25
"""What loading takes beyond the size of the files, at most: graphs are copied into memory, ids and vectors mapped."""


def main() -> None:
    """Be a loader until the supervisor has it end."""
    orders, settings = begun(LoaderOrders, "loader")

    def load(orders: LoaderOrders) -> tuple[Snapshot, Message]:
        store = SnapshotStore(settings.snapshots)
        # The workers of another snapshot may be answering meanwhile.
        snapshot = in_background(lambda: _loaded(store, orders.snapshot_id), LOADING_NICENESS)
        report = {
            "snapshot_id": snapshot.id,
            "items": len(snapshot.items),
            "users": len(snapshot.users),
            "created_seconds": snapshot.manifest.created_time.timestamp(),
        }
        return snapshot, report

    sys.exit(Loader(orders, load, lambda snapshot, post: work(snapshot, post, settings)).run())


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
