"""A server starts, says how it is, and stops without losing what it has begun."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import grpc
import pytest
from edge_twin import TIMEOUT_SECONDS, Calls, TwinRecommender
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hostile_frames import HELLO, SETTINGS, wild_paths

from annserve.domain.errors import InputError
from annserve.service.server import Server
from annserve.service.servicer import SERVICE_NAME
from annserve.service.settings import ServerSettings
from annserve.service.transport import TransportName
from annserve.v1 import recommendation_service_pb2 as messages
from annserve.v1 import recommendation_service_pb2_grpc as service

HEALTH = "/grpc.health.v1.Health"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SIMILAR = messages.SimilarRequest(item_ids=["item-0"])
SERVING = health_pb2.HealthCheckResponse.SERVING
GOAWAY = 7
"""A kind of frame."""
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def _check(
    channel: grpc.aio.Channel,
) -> grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]:
    return channel.unary_unary(
        f"{HEALTH}/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )


def _own_channel(address: str) -> grpc.Channel:
    """Return a channel that shares its connection with no other, and so has to make one."""
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


def _watch(channel: grpc.Channel) -> Iterator[health_pb2.HealthCheckResponse]:
    watch: grpc.UnaryStreamMultiCallable[bytes, health_pb2.HealthCheckResponse] = channel.unary_stream(
        f"{HEALTH}/Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
    )
    return watch(b"", timeout=TIMEOUT_SECONDS)


def _wait_until_nobody_listens(address: str) -> None:
    host, _, port = address.rpartition(":")
    give_up = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < give_up:
        try:
            socket.create_connection((host, int(port))).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue  # It came while the port was being left.
    pytest.fail(f"{address} is still listened on")


@pytest.mark.parametrize("name", ["", SERVICE_NAME])
async def test_health_says_serving_from_the_start(server: str, name: str) -> None:
    async with grpc.aio.insecure_channel(server) as channel:
        answer = await _check(channel)(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_SECONDS)

    assert answer.status == SERVING


async def test_health_of_a_service_that_is_not_here_is_not_found(server: str) -> None:
    async with grpc.aio.insecure_channel(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _check(channel)(health_pb2.HealthCheckRequest(service="other"), timeout=TIMEOUT_SECONDS)

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("enabled", [True, False])
async def test_reflection_lists_the_services_where_it_is_enabled(
    twin: TwinRecommender, enabled: bool, transport: TransportName
) -> None:
    server = Server(ServerSettings(address="127.0.0.1:0", transport=transport, reflection=enabled), twin)
    async with grpc.aio.insecure_channel(await server.start()) as channel:
        list_of: grpc.aio.StreamStreamMultiCallable[bytes, reflection_pb2.ServerReflectionResponse]
        list_of = channel.stream_stream(
            REFLECTION, response_deserializer=reflection_pb2.ServerReflectionResponse.FromString
        )
        request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        listing = list_of(iter([request]), timeout=TIMEOUT_SECONDS)
        answers = aiter(listing)
        if enabled:
            services = (await anext(answers)).list_services_response.service
            names = {entry.name for entry in services}
            assert {SERVICE_NAME, "grpc.health.v1.Health"} <= names
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(answers)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop()


async def test_drain_tells_watchers_finishes_calls_and_does_not_wait_for_streams(
    twin: TwinRecommender, transport: TransportName
) -> None:
    twin.gate, twin.cost_us = threading.Event(), 5_000.0
    server = Server(
        ServerSettings(address="127.0.0.1:0", transport=transport, drain_grace_ms=60_000, deadline_max_ms=60_000), twin
    )
    async with grpc.aio.insecure_channel(await server.start()) as channel:
        watch_of: grpc.aio.UnaryStreamMultiCallable[bytes, health_pb2.HealthCheckResponse] = channel.unary_stream(
            f"{HEALTH}/Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )
        watch = watch_of(b"", timeout=TIMEOUT_SECONDS)
        assert (await anext(aiter(watch))).status == SERVING
        under_way = asyncio.create_task(Calls(channel)("Similar", SIMILAR))
        await asyncio.to_thread(twin.entered.wait, TIMEOUT_SECONDS)

        drained = asyncio.create_task(server.drain())
        assert (await anext(aiter(watch))).status == NOT_SERVING
        assert not drained.done()
        twin.gate.set()

        assert len((await under_way).recommendations.results) == 10
        await asyncio.wait_for(drained, TIMEOUT_SECONDS)


async def test_drain_asks_who_is_connected_to_go_elsewhere(twin: TwinRecommender, transport: TransportName) -> None:
    server = Server(ServerSettings(address="127.0.0.1:0", transport=transport, drain_grace_ms=60_000), twin)
    host, _, port = (await server.start()).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(HELLO)

    async def next_frame() -> tuple[int, bytes]:
        head = await asyncio.wait_for(reader.readexactly(9), TIMEOUT_SECONDS)
        return head[3], await asyncio.wait_for(reader.readexactly(int.from_bytes(head[:3], "big")), TIMEOUT_SECONDS)

    assert (await next_frame())[0] == SETTINGS
    drained = asyncio.create_task(server.drain())
    kind, payload = await next_frame()
    while kind != GOAWAY:
        kind, payload = await next_frame()

    assert payload[4:8] == b"\0\0\0\0", "no error"
    writer.close()
    await asyncio.wait_for(drained, TIMEOUT_SECONDS)


async def test_stop_cancels_calls_under_way(twin: TwinRecommender, transport: TransportName) -> None:
    twin.gate, twin.cost_us = threading.Event(), 5_000.0
    server = Server(ServerSettings(address="127.0.0.1:0", transport=transport), twin)
    async with grpc.aio.insecure_channel(await server.start()) as channel:
        under_way = asyncio.create_task(Calls(channel)("Similar", SIMILAR))
        await asyncio.to_thread(twin.entered.wait, TIMEOUT_SECONDS)

        await server.stop()

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await under_way
        assert caught.value.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        twin.gate.set()


async def test_port_in_use_is_said_with_what_to_do(
    twin: TwinRecommender, capfd: pytest.CaptureFixture[str], transport: TransportName
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = Server(ServerSettings(address=address, transport=transport), twin)

        with pytest.raises(InputError, match=f"cannot serve on {address}: the port is in use; stop what listens there"):
            await server.start()
    await server.stop()

    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("192.0.2.1:50051", "this machine has no such address"),
        ("nowhere.invalid:50051", "the form is host:port"),
        ("127.0.0.1:99999", "the form is host:port"),
        ("127.0.0.1", "the form is host:port"),
    ],
)
async def test_address_that_cannot_be_listened_on_is_said_with_what_to_do(
    twin: TwinRecommender, address: str, advice: str, transport: TransportName
) -> None:
    server = Server(ServerSettings(address=address, transport=transport), twin)

    with pytest.raises(InputError, match=advice):
        await server.start()
    await server.stop()


async def test_name_that_stands_for_several_addresses_is_served_where_there_is_one(
    twin: TwinRecommender, transport: TransportName
) -> None:
    server = Server(ServerSettings(address="localhost:0", transport=transport), twin)
    async with grpc.aio.insecure_channel(await server.start()) as channel:
        assert len((await Calls(channel)("Similar", SIMILAR)).recommendations.results) == 10
    await server.stop()


class Program:
    """`serve_twin` running by itself."""

    def __init__(self, process: subprocess.Popen[str], output: IO[str]) -> None:
        self.process = process
        self.output = output
        self.address = output.readline().strip()

    def wait(self) -> float:
        """Return how many seconds the process took to end, which it did by itself with code 0."""
        before = time.monotonic()
        assert self.process.wait(TIMEOUT_SECONDS) == 0
        return time.monotonic() - before


@pytest.fixture
def program(transport: TransportName) -> Iterator[Program]:
    command = [sys.executable, str(Path(__file__).with_name("serve_twin.py")), transport]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Program(process, process.stdout)
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains_calls_under_way_finish_and_new_ones_are_unavailable(
    program: Program, number: signal.Signals
) -> None:
    with grpc.insecure_channel(program.address) as channel, _own_channel(program.address) as late:
        stub = service.RecommendationServiceStub(channel)
        under_way = [stub.Similar.future(SIMILAR, timeout=TIMEOUT_SECONDS) for _ in range(8)]
        assert [program.output.readline() for _ in under_way] == ["entered\n"] * 8
        watch = _watch(channel)
        assert next(watch).status == SERVING

        program.process.send_signal(number)
        assert next(watch).status == NOT_SERVING
        _wait_until_nobody_listens(program.address)
        refused = service.RecommendationServiceStub(late).Similar.future(SIMILAR, timeout=TIMEOUT_SECONDS)
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
        program.process.send_signal(signal.SIGUSR1)

        assert [len(call.result().recommendations.results) for call in under_way] == [10] * 8
    assert program.wait() < 5.0


def test_second_signal_stops_at_once(program: Program) -> None:
    with grpc.insecure_channel(program.address) as channel:
        under_way = service.RecommendationServiceStub(channel).Similar.future(SIMILAR, timeout=TIMEOUT_SECONDS)
        assert program.output.readline() == "entered\n"
        watch = _watch(channel)
        assert next(watch).status == SERVING
        program.process.terminate()
        assert next(watch).status == NOT_SERVING

        program.process.terminate()

        assert under_way.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
    # Only the interpreter still waits for the thread that holds the gate.
    program.process.send_signal(signal.SIGUSR1)
    assert program.wait() < 5.0


def test_server_that_grpc_has_stopped_ends_so_that_another_takes_its_place(
    program: Program, transport: TransportName
) -> None:
    host, _, port = program.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(wild_paths(random.Random(0)))
        # Both servers end the connection, the one because of what it has read, the other with itself.
        while connection.recv(65_536):
            pass

    if transport == "native":
        with grpc.insecure_channel(program.address) as channel:
            under_way = service.RecommendationServiceStub(channel).Similar.future(SIMILAR, timeout=TIMEOUT_SECONDS)
            assert program.output.readline() == "entered\n"
            program.process.send_signal(signal.SIGUSR1)
            assert under_way.result().recommendations.results
    else:
        assert program.process.wait(TIMEOUT_SECONDS) != 0
