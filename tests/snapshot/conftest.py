"""The snapshots that tests read, and copies that they may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from snapshot_models import Built, make_model

from annserve.snapshot.build import build_snapshot
from annserve.snapshot.store import SnapshotStore


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """One snapshot, built once. Tests read it; those that damage something take a `copy`."""
    model = make_model()
    info = build_snapshot(model, SnapshotStore(tmp_path_factory.mktemp("store")), threads=1)
    return Built(model=model, path=info.path)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "store")


@pytest.fixture
def copy(built: Built, tmp_path: Path) -> Path:
    """A copy of the built snapshot that may be written to."""
    path = tmp_path / built.path.name
    shutil.copytree(built.path, path)
    for file in path.rglob("*"):
        if file.is_file():
            file.chmod(0o644)
    return path
