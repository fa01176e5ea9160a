"""Small spaces with graphs, built once."""

from __future__ import annotations

import numpy as np
import pytest
from spaces import Built, build_space

from annserve.domain.model import Space


@pytest.fixture(scope="session", params=[Space.AFFINITY, Space.LIKENESS], ids=["affinity", "likeness"])
def built(request: pytest.FixtureRequest) -> Built:
    """A space of 3,000 points with a graph, and 100 queries that the graph has not seen."""
    return build_space(request.param, count=3000, dimension=16)


@pytest.fixture(scope="session")
def affinity() -> Built:
    return build_space(Space.AFFINITY, count=3000, dimension=16)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(20)
