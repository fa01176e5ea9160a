"""RecommendationService: what happens to a call between its bytes and the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from annserve.domain.deadline import Deadline
from annserve.domain.errors import AnnserveError, DeadlineExceededError, InvalidArgumentError, OverloadedError
from annserve.domain.ports import Recommender
from annserve.domain.tracing import current_trace
from annserve.service import convert
from annserve.service.admission import Admission, refuse
from annserve.service.answers import Answers, Method, answer_into
from annserve.service.call_log import CallLog
from annserve.service.calls import CODES, abort, decoder, encode, logged_status
from annserve.service.context import Call, Context, Served
from annserve.service.metrics import Metrics
from annserve.service.request_id import request_id_of
from annserve.service.status import status_of
from annserve.v1 import recommendation_service_pb2 as messages

if TYPE_CHECKING:
    from annserve.service.traces import Traces

SERVICE_NAME: Final = messages.DESCRIPTOR.services_by_name["RecommendationService"].full_name

BATCH_MARGIN_SECONDS: Final = 0.02
"""What a batch leaves of its caller's time, at most, to bring home the rows that were done in time."""

METHODS: Final = (
    Method("Similar", messages.SimilarRequest, messages.SimilarResponse, convert.similar_query),
    Method("Personalize", messages.PersonalizeRequest, messages.PersonalizeResponse, convert.personalize_query),
    Method("Related", messages.RelatedRequest, messages.RelatedResponse, convert.related_query),
    Method("Recommend", messages.RecommendRequest, messages.RecommendResponse, convert.recommend_query),
)

_Answering: TypeAlias = Callable[[bytes, Context], Awaitable[bytes]]


class RecommendationServicer:
    """Answers calls from ``recommender``, which keeps the event loop free of what takes long."""

    def __init__(
        self,
        recommender: Recommender,
        deadline_max_ms: int,
        answers: Answers | None = None,
        metrics: Metrics | None = None,
        calls_max: int = 512,
        log_share: float = 0.0,
        traces: Traces | None = None,
    ) -> None:
        """Answer single requests by way of ``answers``, which keep none unless given; count calls in ``metrics``.

        Beyond ``calls_max`` under way calls are refused; of those answered the log has ``log_share``, 0 to 1.
        Each is told to ``traces``.
        """
        self._recommender = recommender
        self._answers = answers or Answers(recommender)
        self._metrics = metrics or Metrics()
        self._traces = traces
        self._admission = Admission(calls_max)
        self._log = CallLog(recommender.snapshot_id, log_share)
        self._deadline_max_seconds = deadline_max_ms / 1_000
        self.calls_under_way = 0

    def methods(self) -> dict[str, Served]:
        """Return what answers each method.

        Bytes in, bytes out: an answer that is kept is found by the one and sent as the other, and bytes that do not
        decode are not left to grpc, which would answer UNKNOWN.
        """
        return {
            **{
                method.name: Served(self._call(method.name, self._answering(method)), self._kept(method))
                for method in METHODS
            },
            "BatchRecommend": Served(self._call("BatchRecommend", self.batch_recommend)),
        }

    async def batch_recommend(self, data: bytes, context: Context) -> bytes:
        """Answer `RecommendationService.BatchRecommend`: row by row, letting other calls in between."""
        request = decoder(messages.BatchRecommendRequest)(data)
        if isinstance(request, InvalidArgumentError):
            raise request
        deadline = self._deadline(context, margin_seconds=BATCH_MARGIN_SECONDS)
        response = messages.BatchRecommendResponse()
        for query in convert.batch_queries(request, self._recommender.schema):
            result = response.results.add()
            try:
                if isinstance(query, AnnserveError):
                    raise query
                deadline.check("an earlier row")
                await answer_into(self._recommender, result, query, deadline)
            except Exception as error:  # noqa: BLE001 - a row's status takes it, and a fault is logged there
                result.status.CopyFrom(logged_status(error, request_id_of(context)))
            await asyncio.sleep(0)
        return encode(response)

    def _answering(self, method: Method) -> _Answering:
        async def answer(data: bytes, context: Context) -> bytes:
            return await self._answers.answer(method, data, self._deadline(context))

        return answer

    def _deadline(self, context: Context, margin_seconds: float = 0.0) -> Deadline:
        remaining = context.time_remaining()
        if remaining is None:
            return Deadline.after(self._deadline_max_seconds)
        if remaining <= 0.0:
            raise DeadlineExceededError("waiting for its turn")
        margin = min(margin_seconds, remaining / 10)
        return Deadline.after(min(remaining - margin, self._deadline_max_seconds))

    def _kept(self, method: Method) -> Callable[[bytes, Context], bytes | None]:
        measure = self._metrics.meter(f"{SERVICE_NAME}/{method.name}")

        def kept(data: bytes, context: Context) -> bytes | None:
            if self._traces is not None:
                return None  # It begins with the call.
            began = time.perf_counter()
            answer = self._answers.kept(method, data)
            if answer is not None:
                seconds = time.perf_counter() - began
                measure("OK", seconds)
                if self._log.is_sampled():
                    self._log.answered(method.name, request_id_of(context), seconds)
            return answer

        return kept

    def _call(self, name: str, method: _Answering) -> Call:
        measure = self._metrics.meter(f"{SERVICE_NAME}/{name}")

        async def call(data: bytes, context: Context, waited_seconds: float = 0.0) -> bytes:
            began, code = time.perf_counter(), "CANCELLED"
            self.calls_under_way += 1
            trace = None if self._traces is None else self._traces.begin(SERVICE_NAME, name, context)
            if trace is not None:
                # Of this call alone: each has a context of its own.
                current_trace.set(trace)
                trace.note("snapshot_id", self._recommender.snapshot_id)
            try:
                self._admission.check(self.calls_under_way, waited_seconds)
                answer = await method(data, context)
                code = "OK"
                if self._log.is_sampled():
                    self._log.answered(name, request_id_of(context), time.perf_counter() - began)
            except OverloadedError as error:
                code = "UNAVAILABLE"
                self._metrics.rejected(error.metadata["cause"])
                self._log.overloaded(name, time.perf_counter() - began, error)
                await refuse(context, error)
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
