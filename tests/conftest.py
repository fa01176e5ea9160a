"""Fixtures of all rooms, and the environment of every test.

One BLAS thread, set before NumPy is imported: as a server runs, and as `implicit` insists on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import uuid
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from mongod import GivenServer, Mongod, MongoServer
from pymongo import MongoClient

os.environ["OPENBLAS_NUM_THREADS"] = "1"
# Instances started by tests take free ports, and the room they need.
os.environ["ANNSERVE_OPS_ADDRESS"] = os.environ["ANNSERVE_ADMIN_ADDRESS"] = "127.0.0.1:0"
os.environ["ANNSERVE_SHARED_CACHE_BYTES"] = str(8 << 20)
# How long an example takes says how busy the machine is. Where hypothesis sees that it runs on CI it takes its profile
# "ci" instead, which has these two settings too, and the same examples each time; here they stay random, to find more.
settings.register_profile(
    "default", settings.get_profile("default"), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# What a script runs in the background is deaf to Ctrl-C, and so would be all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

_sock_connect = BaseSelectorEventLoop.sock_connect


def _connecting(loop: BaseSelectorEventLoop, sock: socket.socket, address: Any) -> asyncio.Task[None]:
    """Connect, and close ``sock`` if that is cancelled, be it before it has begun.

    PyMongo 4.20 does that for failures and time-outs alone. A catalogue that is closed while it connects would leave
    its socket to the garbage collector, whose warning fails whichever test runs by then.
    """
    task = loop.create_task(_sock_connect(loop, sock, address))
    task.add_done_callback(lambda done: sock.close() if done.cancelled() else None)
    return task


BaseSelectorEventLoop.sock_connect = _connecting  # type: ignore[assignment,method-assign]


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
