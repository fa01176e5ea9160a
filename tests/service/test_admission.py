from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from edge_twin import Calls, TwinRecommender
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import DeadlineExceededError, OverloadedError
from annserve.engine.workbench import LOOP_US, Workbench
from annserve.service.admission import HELD_SECONDS
from annserve.service.metrics import Metrics
from annserve.service.server import Server
from annserve.service.settings import ServerSettings
from annserve.service.transport import OPTIONS, TransportName
from annserve.v1 import recommendation_service_pb2 as messages

SIMILAR = messages.SimilarRequest(item_ids=["item-0"])
LONG_US = 10 * LOOP_US
WAIT_SECONDS = 10.0


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def server(twin: TwinRecommender, metrics: Metrics, transport: TransportName) -> AsyncIterator[str]:
    settings = ServerSettings(address="127.0.0.1:0", transport=transport, calls_max=20, deadline_max_ms=10_000)
    edge = Server(settings, twin, metrics=metrics)
    yield await edge.start()
    assert twin.gate is None or twin.gate.is_set()
    await edge.stop()


async def held_up(call: Calls, twin: TwinRecommender, count: int) -> list[asyncio.Task[object]]:
    """Return ``count`` calls that wait for the twin's gate, in threads or for one."""
    twin.gate, twin.cost_us = threading.Event(), LONG_US
    tasks: list[asyncio.Task[object]] = [asyncio.create_task(call("Similar", SIMILAR)) for _ in range(count)]
    assert await asyncio.to_thread(twin.entered.wait, WAIT_SECONDS)
    return tasks


def rejected(metrics: Metrics, reason: str) -> float:
    return metrics.registry.get_sample_value("annserve_rejected_total", {"reason": reason}) or 0.0


async def test_a_search_that_would_wait_too_long_is_refused_and_told_when_to_come_again(
    call: Calls, twin: TwinRecommender, metrics: Metrics
) -> None:
    # With two threads and 10 ms each, the seventh would wait for 30 ms.
    tasks = await held_up(call, twin, 16)
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < 10:
        done, pending = await asyncio.wait(tasks, timeout=0.01)
    errors = [task.exception() for task in done]
    assert twin.gate is not None
    twin.gate.set()
    await asyncio.gather(*pending)

    assert all(isinstance(error, grpc.aio.AioRpcError) for error in errors)
    assert {error.code() for error in errors if isinstance(error, grpc.aio.AioRpcError)} == {
        grpc.StatusCode.UNAVAILABLE
    }
    labels = {"reason": "threads"}
    assert metrics.registry.get_sample_value("annserve_rejected_total", labels) == len(errors) == 10


async def test_a_refusal_says_why_and_when(call: Calls, twin: TwinRecommender, transport: TransportName) -> None:
    tasks = await held_up(call, twin, 6)
    while twin.queued_count < 6:
        await asyncio.sleep(0.001)
    error = await call.error("Similar", SIMILAR)
    assert twin.gate is not None
    twin.gate.set()
    await asyncio.gather(*tasks)

    retry_ms = error.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds()
    assert (error.code, error.info.reason) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
    assert error.info.metadata["cause"] == "threads"
    assert 40 <= retry_ms <= 120
    # The native transport sends no metadata that begins with grpc-, but for the details.
    assert error.trailing.get("grpc-retry-pushback-ms") == (str(retry_ms) if transport == "grpcio" else None)
    assert "x-request-id" not in error.trailing


async def test_who_asks_again_at_once_takes_little_of_the_processor(call: Calls, twin: TwinRecommender) -> None:
    tasks = await held_up(call, twin, 6)
    while twin.queued_count < 6:
        await asyncio.sleep(0.001)
    began, count = time.monotonic(), 0
    while time.monotonic() < began + 20 * HELD_SECONDS:
        await call.error("Similar", SIMILAR)
        count += 1
    seconds = time.monotonic() - began
    assert twin.gate is not None
    twin.gate.set()
    await asyncio.gather(*tasks)

    assert 1 <= count <= seconds / HELD_SECONDS


async def test_refusals_that_are_held_take_no_place_of_calls_that_may_be_let_in(
    call: Calls, twin: TwinRecommender, monkeypatch: pytest.MonkeyPatch, metrics: Metrics
) -> None:
    monkeypatch.setattr("annserve.service.admission.HELD_SECONDS", 2.0)
    tasks = await held_up(call, twin, 6 + 24)
    async with asyncio.timeout(WAIT_SECONDS):
        while sum(rejected(metrics, reason) for reason in ("threads", "calls")) < 24:
            await asyncio.sleep(0.001)
    gate, twin.gate = twin.gate, None
    twin.cost_us = 10.0

    # Of 20 that may be under way 6 are, whose searches wait for a thread, or have one.
    answer = await call("Similar", messages.SimilarRequest(item_ids=["item-2"]))

    assert len(answer.recommendations.results) == 10
    assert rejected(metrics, "calls") == 0
    assert not any(task.done() for task in tasks)
    assert gate is not None
    gate.set()
    await asyncio.wait(tasks)


async def test_what_needs_no_thread_is_answered_while_searches_wait(call: Calls, twin: TwinRecommender) -> None:
    tasks = await held_up(call, twin, 8)
    gate, twin.gate = twin.gate, None
    twin.cost_us = 10.0

    answer = await call("Similar", messages.SimilarRequest(item_ids=["item-2"]))

    assert len(answer.recommendations.results) == 10
    assert gate is not None
    gate.set()
    await asyncio.wait(tasks)


async def test_calls_beyond_those_that_may_be_under_way_are_refused_and_health_is_not(
    server: str, twin: TwinRecommender
) -> None:
    twin.slow = asyncio.Event()
    async with grpc.aio.insecure_channel(server) as channel:
        call = Calls(channel)
        tasks = [asyncio.create_task(call("Similar", SIMILAR)) for _ in range(20)]
        while twin.slow_count < 20:
            await asyncio.sleep(0.001)
        error = await call.error("Similar", SIMILAR)
        health = await health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]
            health_pb2.HealthCheckRequest(), timeout=WAIT_SECONDS
        )
        twin.slow.set()
        await asyncio.gather(*tasks)

    assert (error.info.reason, error.info.metadata["cause"]) == ("OVERLOADED", "calls")
    assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_work_that_waits_is_not_begun_where_too_little_time_would_be_left() -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        bench = Workbench(executor)
        first = asyncio.create_task(bench.run(LONG_US, lambda _: gate.wait(WAIT_SECONDS), NO_DEADLINE))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await bench.run(LONG_US, lambda _: True, Deadline.after(2 * LONG_US / 1e6 - 0.001))
        second = asyncio.create_task(bench.run(LONG_US, lambda _: True, Deadline.after(WAIT_SECONDS)))
        await asyncio.sleep(0)
        gate.set()
        assert all(await asyncio.gather(first, second))


async def test_work_that_finds_a_thread_free_is_tried_whatever_it_is_thought_to_take() -> None:
    with ThreadPoolExecutor(1) as executor:
        assert await Workbench(executor).run(1e9, lambda _: "done", Deadline.after(1.0)) == "done"


async def test_work_that_was_never_begun_makes_nobody_wait() -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        bench = Workbench(executor)
        first = asyncio.create_task(bench.run(LONG_US, lambda _: gate.wait(WAIT_SECONDS), NO_DEADLINE))
        await asyncio.sleep(0)
        for _ in range(20):
            with pytest.raises(DeadlineExceededError):
                await bench.run(LONG_US, lambda _: True, Deadline.after(3 * LONG_US / 1e6))
        gate.set()
        assert await first is True


async def test_estimates_are_corrected_by_what_work_takes() -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        bench = Workbench(executor)
        for _ in range(100):  # Thought to take 10 ms each, and takes no time.
            await bench.run(LONG_US, lambda _: True, NO_DEADLINE)
        first = asyncio.create_task(bench.run(LONG_US, lambda _: gate.wait(WAIT_SECONDS), NO_DEADLINE))
        others = [asyncio.create_task(bench.run(LONG_US, lambda _: True, NO_DEADLINE)) for _ in range(50)]
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(first, *others) == [True] * 51


async def test_a_silent_connection_is_closed_and_a_polite_one_is_not(
    twin: TwinRecommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = [(name, 300 if name == "grpc.server_handshake_timeout_ms" else value) for name, value in OPTIONS]
    monkeypatch.setattr("annserve.service.transport.OPTIONS", shorter)
    # The native transport has no such bound: 120 s, whatever it is told.
    edge = Server(ServerSettings(address="127.0.0.1:0", transport="grpcio"), twin)
    host, _, port = (await edge.start()).rpartition(":")
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(WAIT_SECONDS):
        while await reader.read(1_024):
            pass
    writer.close()

    assert time.monotonic() - began < 5.0
    async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
        assert (await Calls(channel)("Similar", SIMILAR)).recommendations.results
    await edge.stop()


def test_connections_are_bounded_kept_alive_and_renewed() -> None:
    options = dict(OPTIONS)

    assert options["grpc.server_handshake_timeout_ms"] <= 5_000
    assert options["grpc.max_concurrent_streams"] <= 128
    assert options["grpc.keepalive_timeout_ms"] <= options["grpc.keepalive_time_ms"] == 30_000
    # The shipped client pings every 30 s.
    assert options["grpc.http2.min_ping_interval_without_data_ms"] < 30_000
    assert options["grpc.max_connection_age_ms"] == options["grpc.max_connection_idle_ms"] == 300_000
