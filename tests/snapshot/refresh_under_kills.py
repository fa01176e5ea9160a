"""Refreshes that are killed: the process that `test_refresh_kills` starts.

Each is struck in a forked child of its own: at the n-th change it makes to the store, or when it says that a stage has
begun. The parent then looks at what is left, and prints one JSON object with every broken promise it found.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

from build_under_faults import killed_at
from drifting import DRIFT_DAY, SETTINGS, before, drifting, interactions_of

from annserve.domain.errors import AnnserveError
from annserve.domain.progress import Progress, no_progress
from annserve.search.cost import CostModel
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore
from annserve.training.pairs import DAY_MS, pairs_of
from annserve.training.refresh import RefreshSettings, refresh
from annserve.training.train import TrainingSettings, train

DEEDS = drifting()
NEW = interactions_of(DEEDS)
# Some things happen once: that earlier snapshots are pruned too, when one has been published.
WANTED = RefreshSettings(window_ms=7 * DAY_MS, keep=1)
STEP = 12
LAST_CHANGES = 14


def prepared(root: Path) -> SnapshotStore:
    """Return a store with three snapshots, the newest live."""
    store = SnapshotStore(root)
    old = train(pairs_of(interactions_of(before(DEEDS, DRIFT_DAY))), TrainingSettings.model_validate(SETTINGS))
    for number in range(3):
        build_snapshot(replace(old, metrics={"number": number}), store, threads=1)
    return store


def killed_in(wanted: str) -> Progress:
    """Return what has its process killed when it hears of the stage ``wanted``."""

    def hear(stage: str, done: int, total: int | None) -> None:  # noqa: ARG001
        if stage == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    return hear


def refresh_in_child(store: SnapshotStore, fault: Callable[[], None], progress: Progress = no_progress) -> str:
    """Refresh in a forked child with a fault prepared; return how it ended: an outcome, or killed."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            fault()
            with store.refreshing() as is_alone:
                done = refresh(NEW, store, WANTED, progress=progress) if is_alone else None
            code = 0 if done is not None and done.is_live else 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return "killed" if os.WIFSIGNALED(status) else ("live", "not live", "crashed")[os.WEXITSTATUS(status)]


def broken_promises(store: SnapshotStore, live_id: str, end: str) -> list[str]:
    """Return what must not be found after a refresh that ended so, ``live_id`` live before."""
    broken = []
    with store.refreshing() as is_alone:
        if not is_alone:
            broken.append("the lock is held by the dead")
    loaded = load_current(store, cost=CostModel())
    if loaded.refusals or loaded.snapshot.id != store.current_id():
        broken.append(f"{loaded.snapshot.id} is loaded: {loaded.refusals}")
    if (end == "live") != (store.current_id() != live_id) and end != "killed":
        broken.append(f"{end}, and {store.current_id()} is live")
    for snapshot_id in store.ids():
        try:
            store.verify(snapshot_id)
        except AnnserveError as error:
            broken.append(f"half a snapshot is here: {error}")
    # Whoever builds or prunes next sweeps what the dead left.
    store.prune(10)
    known = {*store.ids(), "CURRENT", ".CURRENT", ".lock", ".refresh"}
    broken.extend(f"{path.name} is left" for path in store.root.iterdir() if path.name not in known)
    return broken


def main(folder: Path) -> dict[str, object]:
    """Strike at every few changes and at every stage; return what came of it."""
    original = prepared(folder / "original")
    ends: Counter[str] = Counter()
    broken: list[str] = []

    def strike(name: str, fault: Callable[[], None], progress: Progress = no_progress) -> str:
        root = folder / "struck"
        shutil.copytree(original.root, root)
        store = SnapshotStore(root)
        live_id = store.current_id()
        assert live_id is not None
        end = refresh_in_child(store, fault, progress)
        ends[f"{name.partition(' ')[0]}: {end}"] += 1
        broken.extend(f"{name}: {promise}" for promise in broken_promises(store, live_id, end))
        if end == "killed":
            # As a scheduler would, after its time.
            again = refresh_in_child(store, lambda: None)
            broken.extend(f"{name}, again: {promise}" for promise in broken_promises(store, live_id, again))
            if again != "live":
                broken.append(f"{name}, again: {again}")
        shutil.rmtree(root)
        return end

    stages: list[str] = []

    def noted(stage: str, done: int, total: int | None) -> None:  # noqa: ARG001
        if stage not in stages:
            stages.append(stage)

    refresh(NEW, prepared(folder / "noted"), WANTED, progress=noted)
    for stage in stages:
        strike(f"stage {stage}", lambda: None, killed_in(stage))
    for point in count(1, STEP):
        if strike(f"change {point}", lambda point=point: killed_at(point)) != "killed":  # type: ignore[misc]
            last = point
            break
    # The last are those between giving the snapshot its name and making it live, and of pruning.
    for point in range(last - LAST_CHANGES, last):
        strike(f"change {point}", lambda point=point: killed_at(point))  # type: ignore[misc]
    return {"stages": stages, "ends": ends, "broken": broken}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
