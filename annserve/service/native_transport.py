"""A server whose HTTP/2 and framing run in native threads, without the GIL: ``pygrpc-native``.

Calls come in batches, each an event with its bytes, and are answered by number. What is not a method of ours (health,
reflection, what there is not) the native server hands on to a `grpc.aio` server behind a Unix socket.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Never

import grpc
from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

from annserve.service.calls import DETAILS
from annserve.service.context import Call, Metadata, ServedMethod
from annserve.service.limits import REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX
from annserve.service.listeners import leave
from annserve.service.security import Security
from annserve.service.transport import OPTIONS

_BATCH: Final = 64
_QUEUE: Final = 64
"""Where no more calls are under way nobody has to hurry."""
_FLUSH_SECONDS: Final = 0.05
"""How long answers are given to leave before connections are closed: an answer given just before was lost."""

_EXHAUSTED: Final = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


class NativeContext:
    """A call; implements `context.Context`."""

    __slots__ = ("_call_id", "_deadline_at", "_front", "_metadata")

    def __init__(self, front: NativeGrpcFront, call_id: int, metadata: Metadata, deadline_at: float | None) -> None:
        self._front = front
        self._call_id = call_id
        self._metadata = metadata
        self._deadline_at = deadline_at

    def time_remaining(self) -> float | None:
        """Return the seconds that its caller still waits; None where it set no deadline."""
        return None if self._deadline_at is None else max(self._deadline_at - time.monotonic(), 0.0)

    def invocation_metadata(self) -> Metadata:
        """Return the metadata that came with it."""
        return self._metadata

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()
    ) -> Never:
        """End it with a status, details included but no other metadata of gRPC's own; raises `grpc.aio.AbortError`."""
        allowed = [pair for pair in trailing_metadata if not pair[0].startswith("grpc-") or pair[0] == DETAILS]
        self._front.fail(self._call_id, code.value[0], details, allowed)
        raise grpc.aio.AbortError(details)


class _Waiting(NamedTuple):
    """A call that waits for its turn, beside others of its method."""

    method: int
    data: bytes
    context: NativeContext
    came_at: float


class NativeTransport:
    """Implements `transport.Transport`, without TLS."""

    def __init__(self, security: Security, *, shares_port: bool, socket_folder: Path | None = None) -> None:
        self._access = security.access()
        self._socket_folder = socket_folder
        self._shares_port = shares_port
        options = [option for option in OPTIONS if not option[0].startswith("grpc.max_connection_")]
        self.rest = grpc.aio.server(interceptors=() if self._access is None else (self._access,), options=options)
        self._paths: list[str] = []
        self._methods: list[ServedMethod] = []
        self._front: NativeGrpcFront | None = None
        self._folder: str | None = None
        self._receiver: threading.Thread | None = None
        self._is_read = threading.Semaphore(0)
        """Released when the loop has read all that there was: the thread waits for what comes next."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._waiting: dict[int, _Waiting] = {}
        """Calls that may be answered together, in the order in which they came."""
        self._is_stopping = False
        self._answered_at = 0.0

    def serve(self, service: str, methods: Mapping[str, ServedMethod]) -> None:
        """Answer the methods of ``service``; see `transport.Transport.serve`."""
        self._paths += [f"/{service}/{name}" for name in methods]
        self._methods += methods.values()

    def listen(self, address: str) -> int:
        """Take ``address``; see `transport.Transport.listen`."""
        known = dict(OPTIONS)
        try:
            front = NativeGrpcFront(
                address,
                [(path, False) for path in self._paths],
                io_threads=1,
                call_details=True,
                keepalive_time_ms=known["grpc.keepalive_time_ms"],
                keepalive_timeout_ms=known["grpc.keepalive_timeout_ms"],
                keepalive_permit_without_calls=bool(known["grpc.keepalive_permit_without_calls"]),
                max_concurrent_streams=known["grpc.max_concurrent_streams"],
                max_metadata_size=known["grpc.max_metadata_size"],
                reuse_port=self._shares_port,
            )
        except (OSError, ValueError) as error:
            raise RuntimeError(str(error)) from error
        self._front = front
        return front.bound_port

    async def start(self) -> None:
        """Answer calls."""
        if self._front is None:
            raise RuntimeError("listen comes first")
        self._loop = asyncio.get_running_loop()
        self._folder = tempfile.mkdtemp(prefix="annserve-", dir=self._socket_folder)
        path = f"{self._folder}/rest.sock"
        self.rest.add_insecure_port(f"unix:{path}")
        await self.rest.start()
        self._front.set_fallback(path)
        self._front.start()
        self._receiver = threading.Thread(
            target=self._receive, args=(self._front,), name="annserve-native", daemon=True
        )
        self._receiver.start()

    async def wait_until_lost(self) -> None:
        """Never return: what is no HTTP/2 ends its own connection only."""
        await asyncio.Event().wait()

    async def leave(self, seconds_max: float) -> None:
        """Have callers go elsewhere; see `transport.Transport.leave`."""
        if self._front is not None:
            await leave(self._front.bound_port, seconds_max)

    async def stop(self, grace_seconds: float | None) -> None:
        """Begin no more calls; see `transport.Transport.stop`.

        What comes from those who do not go waits to be told UNAVAILABLE when connections are closed: one that is told
        earlier would try here again.
        """
        resting = asyncio.create_task(self.rest.stop(grace_seconds))
        self._is_stopping = True
        if self._front is not None:
            while self._waiting:
                self._begin_next(self._front)
        if grace_seconds and self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=grace_seconds)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.sleep(max(self._answered_at + _FLUSH_SECONDS - time.monotonic(), 0.0))
        await resting
        front, self._front = self._front, None
        if front is None:
            return
        await asyncio.to_thread(front.close)
        self._is_read.release()
        if self._receiver is not None:
            await asyncio.to_thread(self._receiver.join)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self, front: NativeGrpcFront) -> None:
        """Hand over what comes while the loop has nothing to do; while it has, it looks for itself, for less."""
        while (events := front.recv_batch_details(_BATCH)) is not None:
            try:
                self._loop.call_soon_threadsafe(self._take, front, events)
            except RuntimeError:
                front.close()  # The loop was closed, and nobody stopped this.
                return
            self._is_read.acquire()

    def _read(self, front: NativeGrpcFront) -> None:
        events = front.recv_batch_details(_BATCH, 0)
        if events or self._waiting:
            self._take(front, events)
        else:
            self._is_read.release()

    def _take(self, front: NativeGrpcFront, events: Sequence[Any] | None) -> None:
        now = time.monotonic()
        while events:
            for kind, call_id, method, data, _, details in events:
                if kind == EVENT_CANCEL:
                    self._waiting.pop(call_id, None)
                    if (task := self._tasks.get(call_id)) is not None:
                        task.cancel()
                elif not self._is_stopping:
                    self._begin(front, call_id, method, data, details, now)
            # All that is there gets its place in the queue of the loop, and so a time from which it has waited.
            events = front.recv_batch_details(_BATCH, 0)
        # Finding out that a call has to be answered by itself takes no time to speak of: that is not a turn.
        while self._waiting and not self._answer_together(front):
            pass
        self._loop.call_soon(self._read, front)

    def _answer_together(self, front: NativeGrpcFront) -> bool:
        """Answer the first that wait, as many as one method takes at a time, or begin to answer each by itself.

        Returns whether any was answered: the loop has its turn then, before the next.
        """
        waiting = self._waiting
        method = next(iter(waiting.values())).method
        together = self._methods[method].together
        if together is None:
            raise RuntimeError("a call waits for nothing")
        first = [(call_id, one) for call_id, one in islice(waiting.items(), together.at_most) if one.method == method]
        waited_seconds = self._waited_seconds(first[0][1].came_at)
        requests, contexts = [one.data for _, one in first], [one.context for _, one in first]
        answers = together.answer(requests, contexts, waited_seconds)
        respond = front.respond
        for (call_id, _), answer in zip(first, answers, strict=True):
            if answer is None:
                self._begin_task(front, call_id, waiting.pop(call_id))
            else:
                del waiting[call_id]
                respond(call_id, answer)
        if answers.count(None) == len(answers):
            return False
        self._answered_at = time.monotonic()
        return True

    def _begin_next(self, front: NativeGrpcFront) -> None:
        call_id = next(iter(self._waiting))
        self._begin_task(front, call_id, self._waiting.pop(call_id))

    def _begin_task(self, front: NativeGrpcFront, call_id: int, waiting: _Waiting, refusal: Call | None = None) -> None:
        method, data, context, came_at = waiting
        call = refusal or self._methods[method].call
        self._tasks[call_id] = self._loop.create_task(self._answer(front, call_id, call, data, context, came_at))

    def _waited_seconds(self, came_at: float) -> float:
        # A pause of the machine is no queue.
        return time.monotonic() - came_at if len(self._tasks) + len(self._waiting) > _QUEUE else 0.0

    def _begin(
        self, front: NativeGrpcFront, call_id: int, method: int, data: bytes, details: tuple[Any, ...], now: float
    ) -> None:
        if len(data) > REQUEST_BYTES_MAX:
            front.fail(call_id, _EXHAUSTED, f"received a message of {len(data)} bytes, at most {REQUEST_BYTES_MAX}")
            return
        metadata, _, remaining = details
        context = NativeContext(front, call_id, metadata, None if remaining is None else now + remaining)
        waiting = _Waiting(method, data, context, now)
        refusal = None if self._access is None else self._access.refusal(self._paths[method], metadata)
        if refusal is not None:
            self._begin_task(front, call_id, waiting, refusal)
            return
        _, kept, together = self._methods[method]
        answer = None if kept is None else kept(data, context)
        if answer is not None:
            front.respond(call_id, answer)
            self._answered_at = now
        elif together is None:
            self._begin_task(front, call_id, waiting)
        else:
            self._waiting[call_id] = waiting

    async def _answer(
        self, front: NativeGrpcFront, call_id: int, call: Call, data: bytes, context: NativeContext, came_at: float
    ) -> None:
        try:
            answer = await call(data, context, self._waited_seconds(came_at))
            if len(answer) > RESPONSE_BYTES_MAX:
                front.fail(call_id, _EXHAUSTED, f"an answer of {len(answer)} bytes, at most {RESPONSE_BYTES_MAX}")
            else:
                front.respond(call_id, answer)
        except grpc.aio.AbortError:
            pass  # It has its status.
        finally:
            del self._tasks[call_id]
            self._answered_at = time.monotonic()
