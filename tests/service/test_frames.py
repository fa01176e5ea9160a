"""Clients that speak HTTP/2 badly harm nobody: others are answered, and nothing is kept of them."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from hostile_frames import CONVERSATIONS, HEAD, HELLO, Conversation, call, damaged_calls, frame, talk, wild_paths
from serve_model import model

from annserve.service.servicer import SERVICE_NAME
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import recommendation_service_pb2 as messages

TIMEOUT_SECONDS = 20.0
ROUNDS = 25
RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
SIMILAR = messages.SimilarRequest(item_ids=["item-0"]).SerializeToString()


class Server:
    """A server in a process of its own, and somebody who calls it as one should."""

    def __init__(self, transport: str, address: str, process: psutil.Process, channel: grpc.Channel) -> None:
        self.transport = transport
        self.address = address
        self.process = process
        self._similar: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE_NAME}/Similar")

    def assert_answers(self) -> None:
        """Check that an honest caller is answered, who tries again as the shipped client does."""
        give_up_at = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                response = messages.SimilarResponse.FromString(self._similar(SIMILAR, timeout=TIMEOUT_SECONDS))
            except grpc.RpcError as error:
                if error.code() not in RETRIED or time.monotonic() > give_up_at:
                    raise
                time.sleep(0.02)
            else:
                assert len(response.recommendations.results) == 10
                return

    def wait_for_fds(self, most: int) -> int:
        """Return how many descriptors there are, as soon as there are no more than ``most``, or in the end."""
        give_up_at = time.monotonic() + TIMEOUT_SECONDS
        while (count := self.process.num_fds()) > most and time.monotonic() < give_up_at:
            time.sleep(0.05)
        return count


@pytest.fixture(scope="module", params=["grpcio", "native"])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    info = build_snapshot(model(), SnapshotStore(tmp_path_factory.mktemp("snapshots")), threads=1)
    command = [sys.executable, str(Path(__file__).with_name("serve_model.py")), str(info.path), request.param]
    with (
        # What hostile clients have it say is no text, and may be more than a pipe takes.
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with grpc.insecure_channel(address) as channel:
            yield Server(request.param, address, psutil.Process(process.pid), channel)
        assert process.poll() is None, "the server did not live"
        process.terminate()
        assert process.wait(TIMEOUT_SECONDS) == 0
        log.seek(0)
        said = log.read()
        assert b"Traceback" not in said
        assert b"panicked" not in said


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda conversation: conversation.__name__)
def test_hostile_clients_leave_a_server_that_answers_and_keeps_nothing_of_them(
    server: Server, conversation: Conversation
) -> None:
    if server.transport == "grpcio" and conversation in {damaged_calls, wild_paths}:
        pytest.skip("grpc.aio stops serving then: see test_server_that_grpc_has_stopped_ends")
    source = random.Random(7)
    server.assert_answers()
    fds, memory = server.process.num_fds(), server.process.memory_info().rss

    for _ in range(ROUNDS):
        talk(server.address, conversation(source), source)
        server.assert_answers()

    assert server.wait_for_fds(fds + 2) <= fds + 2
    assert server.process.memory_info().rss - memory < 64 << 20


def test_connections_that_say_nothing_do_not_keep_others_out(server: Server) -> None:
    host, _, port = server.address.rpartition(":")
    silent = [socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) for _ in range(200)]
    for connection in silent[:100]:
        # Half of a call, and then no more.
        connection.sendall(HELLO + frame(1, 4, 1, HEAD) + call(3)[:20])

    server.assert_answers()

    for connection in silent:
        connection.close()
