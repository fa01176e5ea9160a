"""How a client's connections are made; the same for both clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from annserve_client._gen import event_service_pb2, recommendation_service_pb2
from annserve_client._gen.event_service_pb2_grpc import EventServiceStub
from annserve_client._gen.recommendation_service_pb2_grpc import RecommendationServiceStub
from annserve_client.channel import channel_options, target_of
from annserve_client.pool import Channel, Connection, Pool

_SERVICES = (
    (recommendation_service_pb2.DESCRIPTOR.services_by_name["RecommendationService"], RecommendationServiceStub),
    (event_service_pb2.DESCRIPTOR.services_by_name["EventService"], EventServiceStub),
)


def connect(target: str | Sequence[str], count: int, credentials: grpc.ChannelCredentials | None) -> Pool[grpc.Channel]:
    """Return ``count`` channels to ``target``, at least 1, for blocking calls; each connects with its first."""
    name, options = _checked(target, count), channel_options(count)
    if credentials is None:
        channels = [grpc.insecure_channel(name, options) for _ in range(count)]
    else:
        channels = [grpc.secure_channel(name, credentials, options) for _ in range(count)]
    return Pool([_connection(channel) for channel in channels])


def connect_async(
    target: str | Sequence[str], count: int, credentials: grpc.ChannelCredentials | None
) -> Pool[grpc.aio.Channel]:
    """As `connect`, for the event loop that runs."""
    name, options = _checked(target, count), channel_options(count)
    if credentials is None:
        channels = [grpc.aio.insecure_channel(name, options) for _ in range(count)]
    else:
        channels = [grpc.aio.secure_channel(name, credentials, options) for _ in range(count)]
    return Pool([_connection(channel) for channel in channels])


def _checked(target: str | Sequence[str], count: int) -> str:
    if count < 1:
        raise ValueError(f"connection_count must be at least 1, got {count}")
    return target_of(target)


def _connection(channel: Channel) -> Connection[Channel]:
    either: Any = channel
    methods: dict[str, Any] = {}
    for service, stub in _SERVICES:
        made: Any = stub(either)
        methods |= {name: getattr(made, name) for name in service.methods_by_name}
    return Connection(channel=channel, methods=methods)
