"""RecommendationService on grpc.aio: what happens to a call between its bytes and the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from annserve.domain.deadline import Deadline
from annserve.domain.errors import AnnserveError, InvalidArgumentError
from annserve.domain.ports import Recommender
from annserve.domain.query import Query
from annserve.service import convert
from annserve.service.attribution import attribution_token
from annserve.service.calls import Context, Request, abort, decoder, encode, logged_status
from annserve.service.request_id import request_id_of
from annserve.v1 import recommendation_service_pb2 as messages

SERVICE_NAME: Final = messages.DESCRIPTOR.services_by_name["RecommendationService"].full_name

BATCH_MARGIN_SECONDS: Final = 0.02
"""What a batch leaves of its caller's time, at most, to bring home the rows that were done in time."""

Response = TypeVar("Response", bound=Message)


class RecommendationServicer:
    """Answers calls from ``recommender``, which keeps the event loop free of what takes long."""

    def __init__(self, recommender: Recommender, deadline_max_ms: int) -> None:
        self._recommender = recommender
        self._deadline_max_seconds = deadline_max_ms / 1_000
        self.calls_under_way = 0

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Return what grpc needs to serve each method.

        The generated registration is not used: bytes that do not decode would be answered UNKNOWN by grpc itself.
        """
        return {
            "Similar": self._handler(self.similar, messages.SimilarRequest),
            "Personalize": self._handler(self.personalize, messages.PersonalizeRequest),
            "Related": self._handler(self.related, messages.RelatedRequest),
            "BatchRecommend": self._handler(self.batch_recommend, messages.BatchRecommendRequest),
        }

    async def similar(self, request: messages.SimilarRequest, context: Context) -> messages.SimilarResponse:
        """Answer `RecommendationService.Similar`."""
        response = messages.SimilarResponse()
        await self._answer_into(
            response, convert.similar_query(request, self._recommender.schema), self._deadline(context)
        )
        return response

    async def personalize(self, request: messages.PersonalizeRequest, context: Context) -> messages.PersonalizeResponse:
        """Answer `RecommendationService.Personalize`."""
        response = messages.PersonalizeResponse()
        await self._answer_into(
            response, convert.personalize_query(request, self._recommender.schema), self._deadline(context)
        )
        return response

    async def related(self, request: messages.RelatedRequest, context: Context) -> messages.RelatedResponse:
        """Answer `RecommendationService.Related`."""
        response = messages.RelatedResponse()
        await self._answer_into(
            response, convert.related_query(request, self._recommender.schema), self._deadline(context)
        )
        return response

    async def batch_recommend(
        self, request: messages.BatchRecommendRequest, context: Context
    ) -> messages.BatchRecommendResponse:
        """Answer `RecommendationService.BatchRecommend`: row by row, letting other calls in between."""
        deadline = self._deadline(context, margin_seconds=BATCH_MARGIN_SECONDS)
        response = messages.BatchRecommendResponse()
        for query in convert.batch_queries(request, self._recommender.schema):
            result = response.results.add()
            try:
                if isinstance(query, AnnserveError):
                    raise query
                deadline.check("an earlier row")
                await self._answer_into(result, query, deadline)
            except Exception as error:  # noqa: BLE001 - a row's status takes it, and a fault is logged there
                result.status.CopyFrom(logged_status(error, request_id_of(context)))
            await asyncio.sleep(0)
        return response

    async def _answer_into(
        self,
        response: messages.SimilarResponse
        | messages.PersonalizeResponse
        | messages.RelatedResponse
        | messages.BatchRecommendResult,
        query: Query,
        deadline: Deadline,
    ) -> None:
        try:
            answer = await self._recommender.recommend(query, deadline)
        except InvalidArgumentError as error:
            if convert.is_fault_of_caller(error, query.mode):
                raise
            raise RuntimeError("an argument that is no field of the request was refused") from error
        token = attribution_token(answer.snapshot_id, query)
        convert.write_answer(answer, token, response.recommendations, response.serving_info)

    def _deadline(self, context: Context, margin_seconds: float = 0.0) -> Deadline:
        # None where the caller set no deadline; the stubs do not know.
        remaining: float | None = context.time_remaining()
        if remaining is None:
            return Deadline.after(self._deadline_max_seconds)
        margin = min(margin_seconds, remaining / 10)
        return Deadline.after(min(remaining - margin, self._deadline_max_seconds))

    def _handler(
        self, method: Callable[[Request, Context], Awaitable[Response]], request_type: type[Request]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        async def call(request: Request | InvalidArgumentError, context: Context) -> Response:
            self.calls_under_way += 1
            try:
                if isinstance(request, InvalidArgumentError):
                    raise request
                return await method(request, context)
            except Exception as error:  # noqa: BLE001 - the one place where every error of a call ends up
                request_id = request_id_of(context)
                status = logged_status(error, request_id)
                await abort(context, status, request_id)
            finally:
                self.calls_under_way -= 1

        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=decoder(request_type), response_serializer=encode
        )
