"""What a loader holds when it forks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import cast

import psutil
import pytest
from checked_traffic import two_snapshots
from instances import instance

from annserve.cli.background import NICENESS
from annserve.cli.catalog_source import CatalogSource
from annserve.cli.composition import _opened
from annserve.cli.snapshot_loading import _loaded
from annserve.snapshot.store import SnapshotStore
from annserve.supervisor.loader import LoadRefusedError

_LOOK = """
import sys
from pathlib import Path
from annserve.cli.snapshot_loading import snapshot_loader
from annserve.cli.working import import_parts
from annserve.settings import Settings
import_parts(Settings())
names = {"grpc", "pymongo", "pygrpc_native", "annserve.service.native_transport"} & set(sys.modules)
threads = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
print(*sorted(names), len(threads) - threads.count("jemalloc_bg_thd"))
"""

_COUNT = """
import annserve.cli.snapshot_loading
from threadpoolctl import threadpool_info
print(*(pool["num_threads"] for pool in threadpool_info()))
"""


def test_a_loader_holds_all_that_workers_are_made_of_and_no_thread_that_a_fork_would_lose() -> None:
    environment = os.environ | {"ANNSERVE_CATALOG": "mongodb://nowhere", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _LOOK], env=environment, capture_output=True, text=True, check=True, timeout=60
    )

    # That of pyarrow's memory is made anew after a fork.
    assert done.stdout.split() == ["annserve.service.native_transport", "grpc", "pygrpc_native", "pymongo", "1"]


def test_a_loader_begins_without_looking_up_the_version_which_takes_as_long_as_all_else() -> None:
    look = "import sys, annserve.cli.loading; print('importlib.metadata' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize(
    ("program", "not_needed"),
    [
        ("import annserve.cli.keeping", {"scipy"}),
        ("from annserve.cli.app import app_of; app_of()", {"scipy", "pymongo", "implicit"}),
        ("from annserve.cli.app import app_of; app_of(['query'])", {"numpy", "pymongo", "pyarrow", "hnswlib"}),
    ],
)
def test_nothing_is_imported_that_takes_long_and_is_hardly_ever_needed(program: str, not_needed: set[str]) -> None:
    look = f"{program}\nimport sys; print(*set(sys.modules) & {not_needed})"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.split() == []


def test_commands_do_their_mathematics_in_one_thread_though_they_load_it_late() -> None:
    look = """
from annserve.cli.output import entry_point

def counted():
    import numpy, scipy.linalg
    from threadpoolctl import threadpool_info
    print(*(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"))

entry_point(lambda: counted, ())()
"""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=True, timeout=60
    )

    assert set(done.stdout.split()) == {"1"}


def test_a_worker_reads_a_file_of_items_behind_whoever_answers_calls() -> None:
    class Source:
        is_mongodb = False

        def open(self) -> int:
            return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    niceness = os.getpriority(os.PRIO_PROCESS, 0)

    assert cast("object", _opened(cast("CatalogSource", Source()))) == min(niceness + NICENESS, 19)


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
