"""A server around the servicer: start, announce, drain, stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from annserve.cache.shared import CacheCounts, SharedCache
from annserve.domain.deadline import Deadline
from annserve.domain.errors import AnnserveError, InputError
from annserve.domain.ports import Recommender
from annserve.service.answers import Answers
from annserve.service.event_queue import EventQueue
from annserve.service.event_servicer import SERVICE_NAME as EVENT_SERVICE_NAME
from annserve.service.event_servicer import EventServicer
from annserve.service.metrics import MeteredRecommender, Metrics
from annserve.service.servicer import METHODS, SERVICE_NAME, RecommendationServicer
from annserve.service.settings import ServerSettings
from annserve.service.similar import PlainSimilar, SimilarSearch
from annserve.service.transport import transport_of

if TYPE_CHECKING:
    from annserve.service.traces import Traces

WARM_SECONDS: Final = 1.0

_QUIET_SECONDS: Final = 0.05
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a server serves."""

    recommender: Recommender
    events: EventQueue | None = None
    """Takes events; None for a server without `EventService`."""
    similar: SimilarSearch | None = None
    """What ``recommender`` answers Similar by, for many at once; None where each is asked by itself."""


class Server:
    """One server in one event loop, from `start` to `drain` or `stop`."""

    def __init__(
        self,
        settings: ServerSettings,
        recommender: Recommender,
        cache: SharedCache | None = None,
        metrics: Metrics | None = None,
        traces: Traces | None = None,
        events: EventQueue | None = None,
        similar: SimilarSearch | None = None,
    ) -> None:
        """Serve what ``recommender`` answers, and ``similar`` for it.

        With a ``cache`` answers are kept; ``metrics`` counts and ``traces`` traces the calls; ``events`` are taken.
        """
        self._settings = settings
        self._metrics = metrics or Metrics()
        if cache is not None:
            _follow(cache.counts, self._metrics)
        self._metrics.follow_value("annserve_inflight", "Calls under way.", lambda: self.calls_under_way)
        settings.security.follow_in(self._metrics)
        self._publishing: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        metered = MeteredRecommender(recommender, self._metrics)
        self._answers = Answers(metered, cache, settings.answer_ttl_ms / 1e3, settings.personal_answer_ttl_ms / 1e3)
        self._servicer = RecommendationServicer(
            metered,
            settings.deadline_max_ms,
            self._answers,
            self._metrics,
            settings.calls_max,
            settings.log_share,
            traces,
            None if similar is None else PlainSimilar(similar, self._metrics.answered_together),
        )
        self._health = health.aio.HealthServicer()
        self._transport = transport_of(
            settings.transport,
            settings.address,
            settings.security,
            shares_port=settings.is_worker,
            socket_folder=settings.socket_folder,
        )
        self._transport.serve(SERVICE_NAME, self._servicer.methods())
        self._service_names = [SERVICE_NAME]
        if events is not None:
            self._serve_events(events)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._transport.rest)
        if settings.reflection:
            names = (*self._service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._transport.rest)

    def _serve_events(self, events: EventQueue) -> None:
        self._transport.serve(EVENT_SERVICE_NAME, EventServicer(events, self._servicer.handling).methods())
        self._service_names.append(EVENT_SERVICE_NAME)
        self._metrics.follow_fields("annserve_events", "Events, by what became of them.", "outcome", events.counts)

    async def warm(self, requests: Sequence[tuple[str, bytes]]) -> None:
        """Answer ``requests`` to nobody, hottest first and for `WARM_SECONDS` at most, so that they are known."""
        methods = {method.name: method for method in METHODS}
        deadline = Deadline.after(WARM_SECONDS)
        answered = 0
        for name, data in requests:
            if time.monotonic() >= deadline.at:
                break
            try:
                await self._answers.warm(methods[name], data, deadline)
                answered += 1
            except AnnserveError:  # Of an item that is not in this snapshot, say.
                continue
        if requests:
            _log.info("%d of %d hot requests are answered beforehand", answered, len(requests))

    async def start(self) -> str:
        """Serve, and say so in health; returns the address, with the port that was taken where 0 was asked for.

        Raises:
            InputError: the address cannot, or must not, be listened on; the message says why and what to do.
        """
        # A worker's port was taken for the instance, and is bound already.
        host, port = (
            split_address(self._settings.address) if self._settings.is_worker else bindable(self._settings.address)
        )
        self._settings.security.check(self._settings.address)
        try:
            bound_port = self._transport.listen(self._settings.address)
        except RuntimeError as error:
            raise InputError(f"cannot serve on {self._settings.address}: {error}", address=host, port=port) from error
        await self._transport.start()
        self._publishing = asyncio.create_task(self._metrics.keep_published())
        await self.set_health(is_serving=True)
        return f"{host}:{bound_port}"

    @property
    def calls_under_way(self) -> int:
        """How many calls of our own services have begun and not ended."""
        return self._servicer.calls_under_way

    async def set_health(self, *, is_serving: bool) -> None:
        """Say in health whether calls are welcome, of each service and of the server as a whole."""
        status = health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in (health.OVERALL_HEALTH, *self._service_names):
            await self._health.set(name, status)

    async def drain(self) -> None:
        """Have callers go elsewhere, turn new calls away, finish those under way within the grace, stop."""
        grace = Deadline.after(self._settings.drain_grace_ms / 1_000)
        if not self._settings.is_worker:
            await self._health.enter_graceful_shutdown()
        self._leaving = asyncio.create_task(self._transport.leave(grace.at - time.monotonic()))
        await asyncio.wait({self._leaving})
        stopping = asyncio.create_task(self._transport.stop(max(grace.at - time.monotonic(), 0.0)))
        # Streams that watch health or reflect never end by themselves, and nothing is lost with them: once no
        # recommendation has been under way for two looks in a row, the rest of the grace would be spent on them alone.
        quiet_looks = 0
        while quiet_looks < 2 and not stopping.done():
            await asyncio.wait({stopping}, timeout=_QUIET_SECONDS)
            quiet_looks = 0 if self._servicer.calls_under_way else quiet_looks + 1
        await self.stop()
        await stopping

    async def wait_until_lost(self) -> None:
        """Return when no connections are taken any more, though nobody has stopped the server."""
        await self._transport.wait_until_lost()

    async def stop(self) -> None:
        """Stop at once; calls under way are cancelled."""
        if self._leaving is not None:
            self._leaving.cancel()
        await self._transport.stop(None)
        if self._publishing is not None:
            self._publishing.cancel()


def _follow(counts: CacheCounts, metrics: Metrics) -> None:
    results = {"worker": "worker_hits", "instance": "instance_hits", "miss": "misses", "joined": "joined"}
    readers = {result: partial(getattr, counts, name) for result, name in results.items()}
    metrics.follow_counts("annserve_cache_requests", "Questions to the cache of answers, by result.", "result", readers)


def serve(
    settings: ServerSettings,
    opened: AbstractAsyncContextManager[Served],
    ready: Callable[[str], None] = lambda _address: None,
    attend: Callable[[Server], Coroutine[Any, Any, None]] | None = None,
    cache: SharedCache | None = None,
    metrics: Metrics | None = None,
    hot_requests: Callable[[], Sequence[tuple[str, bytes]]] = tuple,
    traces: Traces | None = None,
) -> None:
    """Serve until TERM or INT, then drain; a second signal stops at once.

    Args:
        settings: Where and how.
        opened: Gives what is served, in the event loop that serves it: health says SERVING from the first moment. Left
            when the last call has been answered.
        ready: Called once with the address when calls are answered.
        attend: Runs beside the server from then on, and is cancelled when it has stopped.
        cache: Keeps answers; closed at the end.
        metrics: Counts calls.
        hot_requests: Returns, once ``opened`` has given what answers, what to answer before anybody asks.
        traces: Traces calls; closed at the end.

    Raises:
        InputError: the address cannot be listened on.
    """
    asyncio.run(_serve(settings, opened, ready, attend, cache, metrics, hot_requests, traces), debug=False)


async def _serve(
    settings: ServerSettings,
    opened: AbstractAsyncContextManager[Served],
    ready: Callable[[str], None],
    attend: Callable[[Server], Coroutine[Any, Any, None]] | None,
    cache: SharedCache | None,
    metrics: Metrics | None,
    hot_requests: Callable[[], Sequence[tuple[str, bytes]]],
    traces: Traces | None,
) -> None:
    first, second = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (second if first.is_set() else first).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with opened as served:
        server = Server(settings, served.recommender, cache, metrics, traces, served.events, served.similar)
        attending: asyncio.Task[None] | None = None
        try:
            await server.warm(hot_requests())
            ready(await server.start())
            if attend is not None:
                attending = asyncio.create_task(attend(server))
            lost = asyncio.create_task(server.wait_until_lost())
            signalled = asyncio.create_task(first.wait())
            await asyncio.wait({lost, signalled}, return_when=asyncio.FIRST_COMPLETED)
            lost.cancel()
            if not first.is_set():
                # Whoever started this process starts another.
                raise ConnectionAbortedError("gRPC has stopped serving by itself")
            draining = asyncio.create_task(server.drain())
            hurried = asyncio.create_task(second.wait())
            await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            # Ends a drain that is still on; nothing is left to do otherwise.
            await server.stop()
            await draining
        finally:
            if attending is not None:
                attending.cancel()
            await server.stop()
            if cache is not None:
                cache.close()
            if traces is not None:
                # In a thread: it waits for whoever takes the traces.
                await asyncio.to_thread(traces.close)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``address``.

    Raises:
        ValueError: it has no port, or one that does not exist.
    """
    host, _, port_text = address.rpartition(":")
    port = int(port_text)
    if not 0 <= port <= 65_535:
        raise ValueError(f"there is no port {port}")
    return host, port


def bindable(address: str) -> tuple[str, int]:
    """Return host and port of ``address`` once a plain socket could listen there.

    grpc itself says neither what is wrong nor what to do, and writes to standard error on the way.
    """
    try:
        host, port = split_address(address)
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        problems = [problem for family, *_, target in found if (problem := _bind_problem(family, target))]
        # A name may stand for more addresses than this machine has; one of them is enough.
        if len(problems) == len(found) or any(problem.errno == errno.EADDRINUSE for problem in problems):
            raise problems[0]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot serve on {address}: {_advice(error)}", address=address) from error
    return host, port


def _bind_problem(family: int, target: Any) -> OSError | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
    except OSError as error:
        return error
    return None


def _advice(error: Exception) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EADDRINUSE:
        return "the port is in use; stop what listens there, or choose another port (0 takes a free one)"
    if code == errno.EACCES:
        return "not allowed; choose a port from 1024 on"
    if code == errno.EADDRNOTAVAIL:
        return "this machine has no such address; 127.0.0.1 serves this machine, 0.0.0.0 all who reach it"
    return f"{error}; the form is host:port, for example 127.0.0.1:50051"
