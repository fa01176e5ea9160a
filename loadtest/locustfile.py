"""locust users that call annserve over gRPC, at moments set in advance.

A user is a connection, set up as the shipped client's is, and a Poisson process of calls: it does not wait for an
answer before the next call is due, and the time of a call counts from when it was due. So a server that stops for a
second is seen to have kept everybody waiting who came in that second, not the one caller that a closed loop would have
had (coordinated omission).

    .venv/bin/locust -f loadtest/locustfile.py --host 127.0.0.1:50051 --scenario zipf --rate 300 -u 8 -r 8

`loadtest/load.py` runs it without a browser, on an instance of its own.
"""

from __future__ import annotations

import itertools
import math
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

import gevent
import grpc
import numpy as np
from gevent.pool import Pool
from grpc.experimental.gevent import init_gevent
from locust import User, constant, events, task
from locust.exception import StopUser
from samples import Samples
from scenarios import SCENARIOS, SERVICE, Population, calls_of

from annserve_client.channel import CHANNEL_OPTIONS

# Before a channel is made: its waiting has to give way to other greenlets.
init_gevent()

IN_FLIGHT_MAX: Final = 200
"""Of a user. Whoever comes then waits until one has ended, and this waiting counts."""
LINGER_SECONDS: Final = 2.0
"""How long calls under way are waited for at the end."""
CONNECT_SECONDS: Final = 30.0

_numbers = itertools.count()
_ended = itertools.count(1)
_samples = Samples()


def _add_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("annserve")
    group.add_argument("--scenario", choices=sorted(SCENARIOS), default="mixed", help="what is asked")
    group.add_argument("--rate", type=float, default=200.0, help="calls a second, of all users together")
    group.add_argument("--snapshots", default="snapshots", help="the folder of what is served: whom to ask about")
    group.add_argument("--deadline", type=float, default=5.0, help="seconds a call may take")
    group.add_argument("--warm-up", type=float, default=0.0, help="seconds at the start that count for nothing")
    group.add_argument("--window", type=float, help="seconds after that; without it, until stopped")
    group.add_argument("--samples", help="where to write what each call took, as .npz")


def _prepare(environment: Any, **_: object) -> None:
    environment.population = Population.in_folder(Path(environment.parsed_options.snapshots))


def _write_samples(environment: Any, **_: object) -> None:
    if environment.parsed_options.samples:
        _samples.write(Path(environment.parsed_options.samples))


events.init_command_line_parser.add_listener(_add_options)
events.init.add_listener(_prepare)
events.quitting.add_listener(_write_samples)


class Caller(User):  # type: ignore[misc]
    """One connection, and the calls that come over it."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Connect, and choose when the first call is due."""
        options, number = self.environment.parsed_options, next(_numbers)
        self._options = options
        self._chance = np.random.default_rng((1, number))
        self._calls = calls_of(options.scenario, self.environment.population, seed=number)
        self._gap_seconds = options.num_users / options.rate
        self._under_way = Pool(IN_FLIGHT_MAX)
        self._channel = grpc.insecure_channel(options.host, CHANNEL_OPTIONS)
        grpc.channel_ready_future(self._channel).result(CONNECT_SECONDS)
        # Its time begins when it is connected: a busy machine takes a while to get there.
        self._due_at = time.monotonic()
        self._counts_from = self._due_at + options.warm_up
        self._ends_at = self._counts_from + (options.window or math.inf)

    @task  # type: ignore[untyped-decorator]
    def let_one_call(self) -> None:
        """Wait until the next call is due, and begin it."""
        self._due_at += self._chance.exponential(self._gap_seconds)
        if self._due_at > self._ends_at:
            raise StopUser
        gevent.sleep(max(self._due_at - time.monotonic(), 0.0))
        call = next(self._calls)
        self._under_way.spawn(self._ask, call.method, call.message, self._due_at)

    def on_stop(self) -> None:
        """Let calls under way end, and hang up."""
        self._under_way.join(LINGER_SECONDS)
        self._under_way.kill()
        self._channel.close()
        if self._options.window and next(_ended) == self._options.num_users:
            # By somebody else: it waits for users to end, and this one has not yet.
            gevent.spawn(self.environment.runner.quit)

    def _ask(self, method: str, message: bytes, due_at: float) -> None:
        sent_at = time.monotonic()
        code, answer, problem = "NO_ANSWER", b"", None
        # Bytes are sent as they are; the type knows of messages only.
        ask: Any = self._channel.unary_unary(method)
        try:
            answer = ask(message, timeout=self._options.deadline)
            code = "OK"
        except grpc.RpcError as error:
            code, problem = error.code().name, error
        finally:
            ended_at = time.monotonic()
            if due_at >= self._counts_from:
                _samples.add(due_at - self._counts_from, sent_at - due_at, ended_at - due_at, code)
                self.environment.events.request.fire(
                    request_type="gRPC",
                    name=method.removeprefix(SERVICE),
                    response_time=(ended_at - due_at) * 1e3,
                    response_length=len(answer),
                    exception=problem,
                    context={},
                )
