"""The demo, served once for the clients in all languages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The tests' own instances; they are no package.
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from instances import instance


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where annserve serves its demo."""
    folder = tmp_path_factory.mktemp("demo")
    with instance(folder / "snapshots", folder, "--demo", ANNSERVE_SHARED_CACHE_BYTES=str(8 << 20)) as running:
        yield running.address
