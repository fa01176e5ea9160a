"""What an instance is made of: its board, its port, its folder, its patience, its socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from contextlib import ExitStack, closing
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from annserve.domain.errors import InputError, InstanceUnavailableError, UnknownWorkerError
from annserve.supervisor.backoff import BackOff
from annserve.supervisor.board import SLOTS, Board, SlotState
from annserve.supervisor.control import ControlClient, ControlServer, Reply
from annserve.supervisor.ops import OpsServer
from annserve.supervisor.port import PortReservation
from annserve.supervisor.runtime import RuntimeFolder


def test_what_a_worker_writes_on_the_board_others_read_and_a_cleared_slot_is_empty() -> None:
    with closing(Board.create()) as board:
        pid = os.fork()
        if pid == 0:
            board.take(SLOTS - 1, generation=3)
            board.beat(SLOTS - 1, calls_under_way=9)
            board.set_state(SLOTS - 1, SlotState.SERVING)
            os._exit(0)
        os.waitpid(pid, 0)

        entry = board.entry(SLOTS - 1)
        assert (entry.pid, entry.state, entry.generation, entry.calls_under_way) == (pid, SlotState.SERVING, 3, 9)
        assert entry.heartbeat > 0
        assert board.entry(SLOTS - 2).state is SlotState.EMPTY
        assert not board.is_healthy

        board.clear(SLOTS - 1)
        assert board.entry(SLOTS - 1).pid == 0
        with pytest.raises(ValueError, match="no slot"):
            board.take(SLOTS, generation=1)


def test_a_board_of_another_version_is_refused() -> None:
    with closing(Board.create()) as board:
        os.pwrite(board.fd, b"\x63", 8)

        with pytest.raises(ValueError, match="version"):
            Board(board.fd)


def test_a_port_is_one_instances_and_its_workers_may_all_listen_on_it() -> None:
    with closing(_Held("127.0.0.1:0")) as held:
        with pytest.raises(InputError, match=r"the port is in use.* another --admin-address"):
            PortReservation(held.address, "--admin-address")
        with socket.socket() as first, socket.socket() as second:
            for worker in (first, second):
                worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                worker.bind(("127.0.0.1", int(held.address.rpartition(":")[2])))
                worker.listen()

    with closing(_Held(held.address)) as again:
        assert again.address == held.address


@pytest.mark.parametrize("shares", [False, True])
def test_a_port_that_another_program_listens_on_is_refused(shares: bool) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
        other.bind(("127.0.0.1", 0))
        other.listen()

        for taking in (PortReservation, lambda address: OpsServer(address, Path(), "1")):
            with pytest.raises(InputError, match="cannot serve"):
                taking(f"127.0.0.1:{other.getsockname()[1]}")


def test_metrics_wait_for_the_file_that_a_beginning_worker_has_just_made(tmp_path: Path) -> None:
    made = tmp_path / "counter_1.db"
    made.touch()
    ops = OpsServer("127.0.0.1:0", tmp_path, "1.2.3")
    ops.start()
    with ExitStack() as stack:
        stack.callback(ops.stop)
        url = f"http://{ops.address}/metrics"
        with pytest.raises(HTTPError) as refused:
            urlopen(url, timeout=5.0)
        with refused.value as answer:
            assert answer.code == HTTPStatus.SERVICE_UNAVAILABLE

        writing = threading.Timer(0.03, made.write_bytes, [bytes(1 << 16)])
        writing.start()
        with urlopen(url, timeout=5.0) as answer:
            assert b'annserve_build_info{version="1.2.3"} 1.0' in answer.read()
        writing.join()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000", "192.0.2.1:0"])
def test_an_address_that_cannot_be_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="cannot serve on"):
        PortReservation(address)


def test_the_folder_of_a_dead_instance_is_swept_that_of_a_live_one_is_not(tmp_path: Path) -> None:
    live = RuntimeFolder(tmp_path, 0)
    dead = tmp_path / "annserve-dead"
    dead.mkdir()
    (dead / "lock").touch()
    stranger = tmp_path / "annserve-not-ours"
    stranger.mkdir()

    RuntimeFolder(tmp_path, 0).remove()

    assert {path.name for path in tmp_path.iterdir()} == {live.path.name, stranger.name}
    live.remove()
    assert not live.path.exists()


def test_a_folder_without_room_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MiB are needed"):
        RuntimeFolder(tmp_path, 1 << 60)
    with pytest.raises(InputError, match="not a folder"):
        RuntimeFolder(tmp_path / "missing", 0)

    assert not list(tmp_path.iterdir())


def test_what_never_lives_is_started_at_most_ten_times_a_minute() -> None:
    backoff, starts = BackOff(), list[float]()
    for tick in range(600 * 20):
        now = tick / 20
        if backoff.is_due(now):
            starts.append(now)
            backoff.failed(now)

    assert max(sum(start <= other < start + 60 for other in starts) for start in starts) <= 10
    assert len(starts) > 50
    assert starts[1] - starts[0] <= 0.15


async def test_errors_are_carried_over_the_control_socket_and_nonsense_harms_nobody(tmp_path: Path) -> None:
    async def restart(slot: int) -> Reply:
        raise UnknownWorkerError(slot)

    server = ControlServer(tmp_path / "control.sock", {"restart_worker": restart})
    await server.start()
    client = ControlClient(tmp_path / "control.sock")

    for nonsense in (b"{}\n", b"[1]\n", b"\xff\n", b'{"do": "restart_worker", "never": 1}\n', b"x" * 100_000 + b"\n"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "control.sock")
        writer.write(nonsense)
        line = await reader.readline()
        assert not line or json.loads(line)["ok"] is False
        writer.close()
    with pytest.raises(UnknownWorkerError) as error:
        await client.call("restart_worker", slot=7)
    assert error.value.metadata["slot"] in (7, "7")
    await server.stop()
    with pytest.raises(InstanceUnavailableError):
        await client.call("restart_worker", slot=7)


class _Held(PortReservation):
    """One that `closing` gives back."""

    def close(self) -> None:
        self.release()
