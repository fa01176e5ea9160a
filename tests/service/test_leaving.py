"""A worker leaves its port to others, and its clients notice nothing."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
from edge_twin import TIMEOUT_SECONDS, Calls

from annserve.service.listeners import GOAWAY, leave, listening_fds
from annserve.service.transport import TransportName
from annserve.supervisor.port import PortReservation
from annserve.v1 import recommendation_service_pb2 as messages

CHANNELS = 16
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
"""Each channel has a connection of its own; a call that fails has failed."""
SIMILAR = messages.SimilarRequest(item_ids=["item-0"])


@contextmanager
def _worker(address: str, transport: TransportName) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(Path(__file__).with_name("serve_shared.py")), address, transport]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == address
        yield process
        process.kill()


@pytest.fixture
def address() -> Iterator[str]:
    port = PortReservation("127.0.0.1:0")
    yield port.address
    port.release()


async def _call_until(done: asyncio.Event, channel: grpc.aio.Channel) -> int:
    """Call without a pause; returns how many calls were answered, all of them."""
    count = 0
    while not done.is_set():
        assert (await Calls(channel)("Similar", SIMILAR)).recommendations.results
        count += 1
    return count


async def _connects_without_fail(channel: grpc.aio.Channel) -> None:
    """Raise when ``channel`` once has to wait for its next try."""
    state = channel.get_state()
    while True:
        await channel.wait_for_state_change(state)
        state = channel.get_state()
        assert state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE


async def test_workers_that_leave_together_cost_busy_clients_no_call_and_no_second_try(
    address: str, transport: TransportName
) -> None:
    with ExitStack() as stack:
        leaving = [stack.enter_context(_worker(address, transport)) for _ in range(2)]
        channels = [grpc.aio.insecure_channel(address, OPTIONS) for _ in range(CHANNELS)]
        done = asyncio.Event()
        calling = [asyncio.create_task(_call_until(done, channel)) for channel in channels]
        await asyncio.to_thread(lambda: stack.enter_context(_worker(address, transport)))
        connecting = [asyncio.create_task(_connects_without_fail(channel)) for channel in channels]

        for worker in leaving:
            worker.terminate()
        codes = [await asyncio.to_thread(worker.wait, TIMEOUT_SECONDS) for worker in leaving]
        done.set()

        assert min(await asyncio.gather(*calling)) > 0
        assert codes == [0, 0]
        for task in connecting:
            assert not task.done()
            task.cancel()
        for channel in channels:
            await channel.close()


async def test_a_connection_that_waits_to_be_accepted_is_not_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as waiting:
            leaving = asyncio.create_task(leave(port, TIMEOUT_SECONDS))
            await asyncio.sleep(0.02)
            accepted, _ = listener.accept()
            await leaving

            with accepted:
                accepted.send(b"welcome")
                assert waiting.recv(7) == b"welcome"
        assert listening_fds(port) == []
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


async def test_nobody_is_asked_to_go_before_the_listener_is_closed_and_calls_are_answered_after() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"some settings")
        while data := await reader.read(64):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.readexactly(13) == b"some settings"

    leaving = asyncio.create_task(leave(port, TIMEOUT_SECONDS))
    assert await asyncio.wait_for(reader.readexactly(len(GOAWAY)), TIMEOUT_SECONDS) == GOAWAY
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"one more call")
    assert await asyncio.wait_for(reader.readexactly(13), TIMEOUT_SECONDS) == b"one more call"
    assert not leaving.done()
    writer.close()

    await asyncio.wait_for(leaving, TIMEOUT_SECONDS)
    server.close()
