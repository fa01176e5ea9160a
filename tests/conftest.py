"""Set before any test imports NumPy: one BLAS thread, as a server runs, and as `implicit` insists on."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from mongod import GivenServer, Mongod, MongoServer
from pymongo import MongoClient

os.environ["OPENBLAS_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def mongod() -> Iterator[MongoServer]:
    """A MongoDB server for the whole session: the one ANNSERVE_TEST_MONGODB_URI names, or one of its own."""
    if given := os.environ.get("ANNSERVE_TEST_MONGODB_URI"):
        yield GivenServer(given)
        return
    with Mongod() as server:
        yield server


@pytest.fixture
def database_name(mongod: MongoServer) -> Iterator[str]:
    """The name of a database that holds nothing yet, and is dropped afterwards."""
    name = f"annserve_test_{uuid.uuid4().hex[:12]}"
    yield name
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(name)
