"""What happens to every call of a server, whatever its service: admitted, timed, counted, logged, traced, refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, TypeAlias

from annserve.domain.deadline import Deadline
from annserve.domain.errors import DeadlineExceededError, OverloadedError
from annserve.domain.tracing import current_trace
from annserve.service.admission import Admission, refuse
from annserve.service.call_log import CallLog
from annserve.service.calls import CODES, abort
from annserve.service.context import Call, Context, Together
from annserve.service.metrics import Metrics
from annserve.service.request_id import request_id_of
from annserve.service.status import status_of

if TYPE_CHECKING:
    from annserve.service.traces import Traces

_log = logging.getLogger(__name__)

Answering: TypeAlias = Callable[[bytes, Context], Awaitable[bytes]]


class CallHandling:
    """Handles the calls of one server."""

    def __init__(
        self,
        snapshot_id: str,
        deadline_max_ms: int,
        metrics: Metrics | None = None,
        calls_max: int = 512,
        log_share: float = 0.0,
        traces: Traces | None = None,
    ) -> None:
        """Count calls in ``metrics``, and tell ``traces`` of them.

        Beyond ``calls_max`` under way calls are refused; of those answered the log has ``log_share``, 0 to 1.
        """
        self._snapshot_id = snapshot_id
        self._metrics = metrics or Metrics()
        self._traces = traces
        self._admission = Admission(calls_max)
        self._log = CallLog(snapshot_id, log_share)
        self._deadline_max_seconds = deadline_max_ms / 1_000
        self.calls_under_way = 0
        self._refused_count = 0
        """Of calls under way: they are held for a while, and take no place from others."""

    def deadline(self, context: Context, margin_seconds: float = 0.0) -> Deadline:
        """Return by when a call must be answered, ``margin_seconds`` before its caller's time is up.

        Raises:
            DeadlineExceededError: it is up.
        """
        remaining = context.time_remaining()
        if remaining is None:
            return Deadline.after(self._deadline_max_seconds)
        if remaining <= 0.0:
            raise DeadlineExceededError("waiting for its turn")
        margin = min(margin_seconds, remaining / 10)
        return Deadline.after(min(remaining - margin, self._deadline_max_seconds))

    def call(self, service: str, name: str, method: Answering) -> Call:
        """Return what answers calls of a method: bytes in, bytes out.

        Bytes that do not decode are the method's to refuse: grpc would answer UNKNOWN.
        """
        measure = self._metrics.meter(f"{service}/{name}")

        async def call(data: bytes, context: Context, waited_seconds: float = 0.0) -> bytes:
            began, code = time.perf_counter(), "CANCELLED"
            self.calls_under_way += 1
            trace = None if self._traces is None else self._traces.begin(service, name, context)
            if trace is not None:
                # Of this call alone: each has a context of its own.
                current_trace.set(trace)
                trace.note("snapshot_id", self._snapshot_id)
            try:
                self._admission.check(self.calls_under_way - self._refused_count, waited_seconds)
                answer = await method(data, context)
                code = "OK"
                if self._log.is_sampled():
                    self._log.answered(name, request_id_of(context), time.perf_counter() - began)
            except OverloadedError as error:
                code = "UNAVAILABLE"
                self._metrics.rejected(error.metadata["cause"])
                self._log.overloaded(name, time.perf_counter() - began, error)
                self._refused_count += 1
                try:
                    await refuse(context, error)
                finally:
                    self._refused_count -= 1
            except Exception as error:  # noqa: BLE001 - the one place where every error of a call ends up
                request_id = request_id_of(context)
                status = status_of(error, request_id)
                code = CODES[status.code].name
                self._log.failed(name, code, request_id, time.perf_counter() - began, error)
                await abort(context, status, request_id)
            finally:
                self.calls_under_way -= 1
                measure(code, time.perf_counter() - began)
                if trace is not None:
                    trace.end(code)
            return answer

        return call

    def kept(
        self, service: str, name: str, look: Callable[[bytes], bytes | None]
    ) -> Callable[[bytes, Context], bytes | None]:
        """Return what gives answers that ``look`` finds, without a task of their own; None where there is none."""
        measure = self._metrics.quick_meter(f"{service}/{name}")

        def kept(data: bytes, context: Context) -> bytes | None:
            if self._traces is not None:
                return None  # It begins with the call.
            began = time.perf_counter()
            try:
                answer = look(data)
            except Exception:  # noqa: BLE001 - as below: the ordinary way says what is wrong, if it is
                _log.exception("looking for a kept answer failed, and it is made")
                return None
            if answer is not None:
                seconds = time.perf_counter() - began
                measure(seconds)
                if self._log.is_sampled():
                    self._log.answered(name, request_id_of(context), seconds)
            return answer

        return kept

    def together(
        self, service: str, name: str, at_most: int, make: Callable[[Sequence[bytes]], Sequence[bytes | None]]
    ) -> Together:
        """Return what has ``make`` answer calls that wait at the same time, at most ``at_most`` of them."""
        measure = self._metrics.quick_meter(f"{service}/{name}")

        def together(
            requests: Sequence[bytes], contexts: Sequence[Context], waited_seconds: float
        ) -> Sequence[bytes | None]:
            nothing: Sequence[bytes | None] = [None] * len(requests)
            if self._traces is not None:
                return nothing  # Each is told of by itself.
            began = time.perf_counter()
            try:
                # The one that is too much is refused by itself, as is one whose time is up.
                self._admission.check(self.calls_under_way - self._refused_count + len(requests), waited_seconds)
                in_time = [context.time_remaining() != 0.0 for context in contexts]
                if all(in_time):
                    answers = make(requests)
                else:
                    made = iter(make(list(compress(requests, in_time))))
                    answers = [next(made) if is_in_time else None for is_in_time in in_time]
            except OverloadedError:
                return nothing
            except Exception:  # noqa: BLE001 - nobody must wait in vain for what failed because of another
                _log.exception("calls that came together failed, and are answered one by one")
                return nothing
            count = len(requests) - answers.count(None)
            if count:
                seconds = time.perf_counter() - began
                measure(seconds, count)
                for answer, context in zip(answers, contexts, strict=True):
                    if answer is not None and self._log.is_sampled():
                        self._log.answered(name, request_id_of(context), seconds)
            return answers

        return Together(at_most, together)
