"""Two snapshots of the same items, built once."""

from __future__ import annotations

from pathlib import Path

import pytest
from checked_traffic import two_snapshots


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, str]]:
    """The store, and the ids of both; the second is live."""
    root = tmp_path_factory.mktemp("chaos") / "snapshots"
    return root, two_snapshots(root)
