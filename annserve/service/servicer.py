"""RecommendationService: what happens to a call between its bytes and the engine."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from annserve.domain.errors import AnnserveError, InvalidArgumentError
from annserve.domain.ports import Recommender
from annserve.service import convert
from annserve.service.answers import Answers, Method, answer_into
from annserve.service.call_handling import Answering, CallHandling
from annserve.service.calls import decoder, encode, logged_status
from annserve.service.context import Context, ServedMethod, Together
from annserve.service.metrics import Metrics
from annserve.service.request_id import request_id_of
from annserve.service.similar import PlainSimilar
from annserve.v1 import recommendation_service_pb2 as messages

if TYPE_CHECKING:
    from annserve.service.traces import Traces

SERVICE_NAME: Final = messages.DESCRIPTOR.services_by_name["RecommendationService"].full_name

BATCH_MARGIN_SECONDS: Final = 0.02
"""What a batch leaves of its caller's time, at most, to bring home the rows that were done in time."""

SIMILAR: Final = Method("Similar", messages.SimilarRequest, messages.SimilarResponse, convert.similar_query)
METHODS: Final = (
    SIMILAR,
    Method("Personalize", messages.PersonalizeRequest, messages.PersonalizeResponse, convert.personalize_query),
    Method("Related", messages.RelatedRequest, messages.RelatedResponse, convert.related_query),
    Method("Recommend", messages.RecommendRequest, messages.RecommendResponse, convert.recommend_query),
)


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
        similar: PlainSimilar | None = None,
    ) -> None:
        """Answer single requests by way of ``answers``, which keep none unless given; count calls in ``metrics``.

        What it can of the calls of Similar that come together, ``similar`` answers.

        Beyond ``calls_max`` under way calls are refused; of those answered the log has ``log_share``, 0 to 1.
        Each is told to ``traces``.
        """
        self._recommender = recommender
        self._answers = answers or Answers(recommender)
        self._similar = similar
        self.handling = CallHandling(recommender.snapshot_id, deadline_max_ms, metrics, calls_max, log_share, traces)
        """Handles its calls, and those of services beside it."""

    @property
    def calls_under_way(self) -> int:
        """How many calls have begun and not ended."""
        return self.handling.calls_under_way

    def methods(self) -> dict[str, ServedMethod]:
        """Return what answers each method."""
        handling = self.handling
        return {
            **{
                method.name: ServedMethod(
                    handling.call(SERVICE_NAME, method.name, self._answering(method)),
                    handling.kept(SERVICE_NAME, method.name, partial(self._answers.kept, method)),
                    self._together(method),
                )
                for method in METHODS
            },
            "BatchRecommend": ServedMethod(handling.call(SERVICE_NAME, "BatchRecommend", self.batch_recommend)),
        }

    async def batch_recommend(self, data: bytes, context: Context) -> bytes:
        """Answer `RecommendationService.BatchRecommend`: row by row, letting other calls in between."""
        request = decoder(messages.BatchRecommendRequest)(data)
        if isinstance(request, InvalidArgumentError):
            raise request
        deadline = self.handling.deadline(context, margin_seconds=BATCH_MARGIN_SECONDS)
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

    def _together(self, method: Method) -> Together | None:
        similar = self._similar
        if method is not SIMILAR or similar is None or not similar.at_most:
            return None
        keeps = self._answers.keeps_shared
        make = partial(self._answers.together, method, similar) if keeps else similar.answers
        return self.handling.together(SERVICE_NAME, method.name, similar.at_most, make)

    def _answering(self, method: Method) -> Answering:
        async def answer(data: bytes, context: Context) -> bytes:
            return await self._answers.answer(method, data, self.handling.deadline(context))

        return answer
