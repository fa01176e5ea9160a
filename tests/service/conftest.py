"""A real server around a twin of the engine, and a channel to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from edge_twin import Calls, TwinRecommender

from annserve.service.server import Server
from annserve.service.settings import ServerSettings


@pytest.fixture
def twin() -> TwinRecommender:
    return TwinRecommender()


@pytest.fixture
async def server(twin: TwinRecommender) -> AsyncIterator[str]:
    """The address of a server around ``twin``."""
    edge = Server(ServerSettings(address="127.0.0.1:0", drain_grace_ms=5_000, deadline_max_ms=1_000), twin)
    yield await edge.start()
    await edge.stop()


@pytest.fixture
async def call(server: str) -> AsyncIterator[Calls]:
    async with grpc.aio.insecure_channel(server) as channel:
        yield Calls(channel)
