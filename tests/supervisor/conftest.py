from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from supervised import Supervised


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Supervised]:
    """A toy instance that has not been started."""
    instance = Supervised(tmp_path)
    yield instance
    instance.end()
