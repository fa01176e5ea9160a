"""The open loop against a real server that stops for a while."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Iterator

import grpc
import numpy as np
import pytest
from open_loop import OK, Call, connect, keep_busy, moments_of, send_at

METHOD = "/loadtest.Echo/Echo"
STOP_SECONDS = 0.4
RATE = 100.0


class Echo(grpc.GenericRpcHandler):
    """Answers with what it is sent, and stops everything for a while when that is `stop`."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def answer(message: bytes, _context: object) -> bytes:
            self.seen.append((str(details.method), message))
            if message == b"stop":
                time.sleep(STOP_SECONDS)
            return message

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def address(echo: Echo) -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((echo,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


def one_stop(at: int) -> Iterator[Call]:
    """One call among many that stops the server."""
    return (Call(METHOD, b"stop" if number == at else b"go") for number in itertools.count())


async def test_whoever_is_due_while_the_server_stops_has_waited(address: str) -> None:
    (connection,) = await connect(address, 1, timeout_seconds=5.0)
    moments = [number / RATE for number in range(100)]

    # One call at a time: most of those that are due in the stop cannot even be sent.
    outcomes = await send_at([connection], one_stop(10), moments, streams_max=1)

    connection.close()
    assert outcomes.statuses == [OK] * 100
    waited = np.array(outcomes.seconds)
    # A call every 10 ms was due in those 400 ms; the one due in the middle of them waited for half of them.
    assert (waited > STOP_SECONDS / 2).sum() >= STOP_SECONDS / 2 * RATE * 0.9


async def test_calls_bring_their_own_messages_and_methods(address: str, echo: Echo) -> None:
    asked = [("/loadtest.Echo/One", b"1"), ("/loadtest.Echo/Two", b"22"), ("/loadtest.Echo/One", b"")]
    connections = await connect(address, 1, timeout_seconds=5.0)

    outcomes = await send_at(connections, (Call(*one) for one in asked), [0.0, 0.01, 0.02])

    connections[0].close()
    assert outcomes.statuses == [OK] * 3
    assert echo.seen == asked


async def test_a_closed_loop_has_no_more_under_way_than_told(address: str, echo: Echo) -> None:
    connections = await connect(address, 2, timeout_seconds=5.0)

    outcomes = await keep_busy(connections, itertools.repeat(Call(METHOD, b"go")), 1, 0.2)

    for connection in connections:
        connection.close()
    assert len(outcomes.statuses) == len(echo.seen) > 2
    assert set(outcomes.statuses) == {OK}


def test_moments_come_at_the_rate_and_at_random() -> None:
    moments = np.array(moments_of(1_000.0, 10.0, np.random.default_rng(0)))

    gaps = np.diff(moments)
    assert len(moments) / moments[-1] == pytest.approx(1_000, rel=0.05)
    # The gaps of a Poisson process spread as much as they are long.
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.05)
