"""The client for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from annserve_client._gen.event_service_pb2_grpc import EventServiceStub
from annserve_client._gen.recommendation_service_pb2_grpc import RecommendationServiceStub
from annserve_client.channel import CHANNEL_OPTIONS, default_timeout, key_metadata
from annserve_client.convert import answer_of, batch_answers_of, batch_message_of, message_of
from annserve_client.errors import AnnserveError, error_of_call
from annserve_client.events import Event, Written, write_message_of, written_of
from annserve_client.requests import DEFAULT_OPTIONS, Options, Personalize, Related, Request, Similar, WeightedItem
from annserve_client.results import Recommendations


class AsyncClient:
    """As `Client`, in the event loop it is made in, whose tasks may share it. `close` it, or use ``async with``."""

    def __init__(
        self,
        target: str,
        *,
        timeout_seconds: float | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str | None = None,
    ) -> None:
        """Make a client; it connects with the first call. Arguments are those of `Client`."""
        self._metadata = key_metadata(api_key)
        self._timeout_seconds = default_timeout(None, timeout_seconds)
        self._batch_timeout_seconds = default_timeout("BatchRecommend", timeout_seconds)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, CHANNEL_OPTIONS)
        stub = RecommendationServiceStub(self._channel)
        self._batch = stub.BatchRecommend
        self._write_timeout_seconds = default_timeout("Write", timeout_seconds)
        self._write = EventServiceStub(self._channel).Write
        self._methods: dict[type[Request], grpc.aio.UnaryUnaryMultiCallable[Any, Any]] = {
            Similar: stub.Similar,
            Personalize: stub.Personalize,
            Related: stub.Related,
        }

    async def similar(
        self, item_ids: Sequence[str], *, options: Options = DEFAULT_OPTIONS, timeout_seconds: float | None = None
    ) -> Recommendations:
        """Return the items most like one or several seed items; raises as `recommend`."""
        return await self.recommend(Similar(item_ids=item_ids, options=options), timeout_seconds=timeout_seconds)

    async def personalize(
        self,
        user_id: str | None = None,
        *,
        recent_items: Sequence[WeightedItem] = (),
        options: Options = DEFAULT_OPTIONS,
        timeout_seconds: float | None = None,
    ) -> Recommendations:
        """Return the items that suit a user best; raises as `recommend`."""
        request = Personalize(user_id=user_id, recent_items=recent_items, options=options)
        return await self.recommend(request, timeout_seconds=timeout_seconds)

    async def related(
        self,
        item_ids: Sequence[str],
        user_id: str | None = None,
        *,
        recent_items: Sequence[WeightedItem] = (),
        user_impact: float | None = None,
        options: Options = DEFAULT_OPTIONS,
        timeout_seconds: float | None = None,
    ) -> Recommendations:
        """Return the items that go with what is on screen, for a user; raises as `recommend`."""
        request = Related(
            item_ids=item_ids, user_id=user_id, recent_items=recent_items, user_impact=user_impact, options=options
        )
        return await self.recommend(request, timeout_seconds=timeout_seconds)

    async def recommend(self, request: Request, *, timeout_seconds: float | None = None) -> Recommendations:
        """Return the answer to ``request``.

        Args:
            request: What is asked.
            timeout_seconds: How long this call may take, retries included; the client's default unless set.

        Raises:
            AnnserveError: there is no answer; its class says what family of reasons it is of.
        """
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            return answer_of(
                await self._methods[type(request)](message_of(request), timeout=timeout, metadata=self._metadata)
            )
        except grpc.RpcError as error:
            raise error_of_call(error) from error

    async def batch(
        self, requests: Iterable[Request], *, timeout_seconds: float | None = None
    ) -> list[Recommendations | AnnserveError]:
        """Return the answer to each of up to 100 ``requests``, in their order, or why there is none.

        Raises:
            AnnserveError: the call as a whole failed.
        """
        timeout = self._batch_timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            return batch_answers_of(
                await self._batch(batch_message_of(requests), timeout=timeout, metadata=self._metadata)
            )
        except grpc.RpcError as error:
            raise error_of_call(error) from error

    async def write_events(self, events: Iterable[Event], *, timeout_seconds: float | None = None) -> Written:
        """Have the server keep 1 to 500 ``events``, all or none; to call it again with the same ones does no harm.

        Raises:
            AnnserveError: it is not known that they are kept.
        """
        timeout = self._write_timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            return written_of(await self._write(write_message_of(events), timeout=timeout, metadata=self._metadata))
        except grpc.RpcError as error:
            raise error_of_call(error) from error

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
