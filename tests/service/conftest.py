"""A real server around a twin of the engine, and a channel to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from edge_twin import Calls, TwinRecommender

from annserve.service.server import Server
from annserve.service.settings import ServerSettings
from annserve.service.transport import TransportName


@pytest.fixture
def twin() -> TwinRecommender:
    return TwinRecommender()


@pytest.fixture(params=["grpcio", "native"])
def transport(request: pytest.FixtureRequest) -> TransportName:
    """Each that there is."""
    name: TransportName = request.param
    return name


@pytest.fixture
def deadline_max_ms() -> int:
    """How long a call may take whose caller says nothing else."""
    return 1_000


@pytest.fixture
async def server(twin: TwinRecommender, transport: TransportName, deadline_max_ms: int) -> AsyncIterator[str]:
    """The address of a server around ``twin``."""
    settings = ServerSettings(
        address="127.0.0.1:0", transport=transport, drain_grace_ms=5_000, deadline_max_ms=deadline_max_ms
    )
    edge = Server(settings, twin)
    yield await edge.start()
    await edge.stop()


@pytest.fixture
async def call(server: str) -> AsyncIterator[Calls]:
    async with grpc.aio.insecure_channel(server) as channel:
        yield Calls(channel)
