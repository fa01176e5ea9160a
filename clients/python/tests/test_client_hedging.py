"""Both clients where calls are slow, servers several and failures many."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from scripted_server import TIMEOUT_SECONDS, Script, serving, similar_response

import annserve_client
from annserve_client import (
    AnnserveError,
    AsyncClient,
    Client,
    DeadlineError,
    Hedging,
    Recommendations,
    UnavailableError,
)

SEED = ["a"]
SOON = Hedging(after_seconds=0.02, budget=1.0)


class Peers(Script):
    """Answers, and notes by which connection it was asked; those whose turn is among ``silent`` are never answered."""

    def __init__(self, *lines: Any, silent: int = 0) -> None:
        super().__init__(*lines)
        self.peers: list[str] = []
        self.silent_peers: set[str] = set()
        self.silent = silent
        self.ended = threading.Event()
        self.cancelled = threading.Semaphore(0)

    def play(self, request: Any, context: grpc.ServicerContext) -> Any:
        peer = context.peer()
        self.peers.append(peer)
        if len(self.silent_peers) < self.silent:
            self.silent_peers.add(peer)
        if peer in self.silent_peers:
            context.add_callback(self.cancelled.release)
            self.ended.wait(TIMEOUT_SECONDS)
        return super().play(request, context)


@pytest.fixture
def peers() -> Iterator[Peers]:
    script = Peers(similar_response(), silent=1)
    yield script
    script.ended.set()


Answers = list[Recommendations | AnnserveError]
Ask = Callable[..., Awaitable[tuple[Answers, int]]]


async def _blocking(target: Any, count: int, **more: Any) -> tuple[Answers, int]:
    answers: Answers = []
    with Client(target, **more) as client:
        for _ in range(count):
            try:
                answers.append(client.similar(SEED))
            except AnnserveError as error:
                answers.append(error)
    return answers, client.hedge_count


async def _asynchronous(target: Any, count: int, **more: Any) -> tuple[Answers, int]:
    answers: Answers = []
    async with AsyncClient(target, **more) as client:
        for _ in range(count):
            try:
                answers.append(await client.similar(SEED))
            except AnnserveError as error:
                answers.append(error)
    return answers, client.hedge_count


@pytest.fixture(params=[_blocking, _asynchronous], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """So many calls one after the other, with a client of either kind; gives answers, and how many were hedged."""
    method: Ask = request.param
    return method


async def test_slow_call_is_answered_by_another_connection_and_cancelled(ask: Ask, peers: Peers) -> None:
    with serving(peers) as target:
        answers, _ = await ask(target, 1, connection_count=2, hedging=SOON, timeout_seconds=TIMEOUT_SECONDS)

        assert isinstance(answers[0], Recommendations)
        assert len(set(peers.peers)) == 2
        assert peers.cancelled.acquire(timeout=TIMEOUT_SECONDS)
        peers.ended.set()


async def test_connection_that_was_overtaken_is_not_asked_again_at_once(ask: Ask, peers: Peers) -> None:
    with serving(peers) as target:
        # Later than a call that is well takes on a busy machine, or it would be hedged too.
        hedging = Hedging(after_seconds=0.2, budget=1.0)
        answers, _ = await ask(target, 10, connection_count=2, hedging=hedging, timeout_seconds=TIMEOUT_SECONDS)
        peers.ended.set()

    assert all(isinstance(answer, Recommendations) for answer in answers)
    assert len(peers.peers) < 15


async def test_second_attempts_stay_within_their_budget(ask: Ask) -> None:
    script = Peers(similar_response(), silent=2)
    with serving(script) as target:
        answers, hedge_count = await ask(
            target, 14, connection_count=2, hedging=Hedging(after_seconds=0.01, budget=0.05), timeout_seconds=0.1
        )
        script.ended.set()

    # Ten are there to begin with, and so few calls do not earn another.
    assert all(isinstance(answer, DeadlineError) for answer in answers)
    assert hedge_count == 10


async def test_connections_that_both_ran_out_of_time_are_both_left_alone() -> None:
    script = Peers(similar_response(), silent=2)
    hedging = Hedging(after_seconds=0.1, budget=1.0)
    with serving(script) as target, Client(target, connection_count=3, hedging=hedging, timeout_seconds=1.0) as client:
        with pytest.raises(DeadlineError):
            client.similar(SEED)
        script.ended.set()

        assert sorted(connection.lapse_count for connection in client._pool.connections) == [0, 1, 1]
        assert [connection.call_count for connection in client._pool.connections] == [0, 0, 0]


async def test_quick_call_is_made_once(ask: Ask) -> None:
    script = Peers(similar_response())
    with serving(script) as target:
        await ask(target, 5, connection_count=2, hedging=Hedging(after_seconds=5.0), timeout_seconds=TIMEOUT_SECONDS)

    assert len(script.peers) == 5


async def test_failure_that_comes_at_once_is_not_hedged(ask: Ask) -> None:
    script = Peers(grpc.StatusCode.INTERNAL)
    with serving(script) as target:
        (error,), _ = await ask(
            target, 1, connection_count=2, hedging=Hedging(after_seconds=5.0), timeout_seconds=TIMEOUT_SECONDS
        )

    assert isinstance(error, AnnserveError)
    assert error.code is grpc.StatusCode.INTERNAL
    assert len(script.peers) == 1


async def test_calls_use_every_connection(ask: Ask) -> None:
    script = Peers(similar_response())
    with serving(script) as target:
        await ask(target, 12, connection_count=4, timeout_seconds=TIMEOUT_SECONDS)

    assert len(set(script.peers)) == 4


async def test_calls_are_balanced_over_a_list_of_addresses(ask: Ask) -> None:
    scripts = [Script(similar_response()), Script(similar_response())]
    with ExitStack() as servers:
        targets = [servers.enter_context(serving(script)) for script in scripts]
        # Until both connections are made one server may answer alone.
        for _ in range(20):
            before = [len(script.requests) for script in scripts]
            await ask(targets, 20, timeout_seconds=TIMEOUT_SECONDS)
            if all(len(script.requests) > count for script, count in zip(scripts, before, strict=True)):
                break

    shares = [len(script.requests) for script in scripts]
    assert min(shares) > 0


async def test_server_that_is_gone_costs_nothing_while_another_is_there(ask: Ask) -> None:
    with ExitStack() as servers:
        here = servers.enter_context(serving(Script(similar_response())))
        with serving(Script(similar_response())) as gone:
            pass
        answers, _ = await ask([gone, here], 20, timeout_seconds=TIMEOUT_SECONDS)

    assert all(isinstance(answer, Recommendations) for answer in answers)


CALLS = 10_000


async def test_backend_that_fails_always_is_asked_hardly_more_often_than_calls_are_made() -> None:
    script = Script(grpc.StatusCode.UNAVAILABLE)
    with serving(script) as target:
        async with AsyncClient(target, connection_count=4, timeout_seconds=TIMEOUT_SECONDS) as client:
            for _ in range(CALLS // 100):
                answers = await asyncio.gather(*(client.similar(SEED) for _ in range(100)), return_exceptions=True)
                assert all(isinstance(answer, UnavailableError) for answer in answers)

    assert CALLS < len(script.requests) <= 1.1 * CALLS


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"connection_count": 0}, "connection_count must be at least 1, got 0"),
        ({"hedging": SOON}, "connection_count must be at least 2 where calls are hedged, got 1"),
        ({"target": []}, r"target must be one name, or a list of IP:port of one IP version, got \[\]"),
        ({"target": ["localhost:1", "127.0.0.1:1"]}, "target must be one name"),
        ({"target": ["[::1]:1", "127.0.0.1:1"]}, "target must be one name"),
    ],
)
async def test_arguments_that_make_no_client_are_refused(kind: Any, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        kind(**{"target": "127.0.0.1:1"} | arguments)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"after_seconds": 0.0}, "after_seconds must be above 0, got 0.0"),
        ({"after_seconds": 0.1, "budget": 0.0}, "budget must be above 0 and at most 1, got 0.0"),
        ({"after_seconds": 0.1, "budget": 1.5}, "budget must be above 0 and at most 1, got 1.5"),
    ],
)
def test_hedging_without_bounds_is_refused(arguments: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Hedging(**arguments)


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    def surface(kind: type) -> dict[str, list[str]]:
        methods = {name: method for name, method in vars(kind).items() if callable(method) and name[0] != "_"}
        return {name: list(inspect.signature(method).parameters) for name, method in methods.items()}

    assert surface(Client) == surface(AsyncClient)
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


@pytest.mark.parametrize("name", annserve_client.__all__)
def test_no_generated_type_is_in_the_public_interface(name: str) -> None:
    public = getattr(annserve_client, name)
    parts = getattr(public, "__dict__", {}).items()
    values = [public, *(value for part, value in parts if part[0] != "_" or part == "__init__")]
    said = "".join(str(getattr(value, "__annotations__", "")) + str(value) for value in values)

    assert "_pb2" not in said
    assert "_gen" not in said
    assert "messages." not in said
