"""What a loader holds when it forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from checked_traffic import two_snapshots
from instances import instance

from annserve.cli.snapshot_loading import _loaded
from annserve.snapshot.store import SnapshotStore
from annserve.supervisor.loader import LoadRefusedError

_LOOK = """
import sys, threading
from annserve.cli.loading import _imported
_imported()
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"grpc", "pymongo", "bson"}), threading.active_count())
"""

_COUNT = """
from annserve.cli.loading import _imported
_imported()
from threadpoolctl import threadpool_info
print(*(pool["num_threads"] for pool in threadpool_info()))
"""


def test_a_loader_has_one_thread_and_neither_grpc_nor_pymongo_when_it_forks() -> None:
    done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.split() == ["1"]


def test_a_snapshot_that_would_not_fit_into_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "snapshots")
    _, other = two_snapshots(store.root, 50)
    # A hole: it takes no room on the disk, and reading it would take hours.
    with (store.path(other) / "vectors.npy").open("ab") as file:
        file.truncate(8 << 40)

    with pytest.raises(LoadRefusedError, match=r"needs about [\d,]+ bytes of memory, [\d,]+ are free") as caught:
        _loaded(store, other)

    assert caught.value.reason == "MEMORY"


def test_an_instance_does_its_mathematics_in_one_thread_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    two_snapshots(tmp_path / "snapshots", 50)
    # Its title must leave the environment readable.
    with instance(tmp_path / "snapshots", tmp_path, workers=1, SPT_NOENV="1") as running:
        (loader,) = running.pids_titled("annserve: loader")
        environment = psutil.Process(loader).environ()
    done = subprocess.run(
        [sys.executable, "-c", _COUNT], env=environment, capture_output=True, text=True, check=True, timeout=60
    )

    assert set(done.stdout.split()) == {"1"}
