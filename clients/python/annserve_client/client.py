"""The blocking client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from annserve_client.channel import default_timeout, key_metadata
from annserve_client.connections import connect
from annserve_client.convert import (
    BATCH_ROWS_MAX,
    answer_of,
    batch_answers_of,
    batch_message_of,
    batches_of,
    message_of,
)
from annserve_client.errors import AnnserveError, error_of_call
from annserve_client.events import Event, Written, write_message_of, written_of
from annserve_client.hedging import Hedger, Hedging
from annserve_client.pool import Connection, lapsed
from annserve_client.requests import DEFAULT_OPTIONS, Options, Personalize, Related, Request, Similar, WeightedItem
from annserve_client.results import Recommendations


class Client:
    """Asks one annserve server, or several behind one name. Threads may share it; `close` it, or use ``with``."""

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        timeout_seconds: float | None = None,
        connection_count: int = 1,
        hedging: Hedging | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str | None = None,
    ) -> None:
        """Make a client; it connects with the first call.

        Args:
            target: Where the server is, in gRPC's naming: ``127.0.0.1:50051``, ``dns:///annserve.example:50051``. Calls
                are balanced over the addresses of a name, or those that a list of ``IP:port`` has.
            timeout_seconds: How long a call may take, retries included; 0.3, 1 for a batch, 2 for events, unless set.
            connection_count: How many connections to have to each address. What comes by one connection is answered by
                one worker of an instance, so a few more than it has workers have all of them work.
            hedging: Whether and when a call is sent a second time; never unless set. Needs 2 connections.
            credentials: How to secure the connection; it is not secured unless set: `grpc.ssl_channel_credentials`.
            api_key: What the server asks for, where it does.
        """
        self._metadata = key_metadata(api_key)
        self._timeout_seconds = default_timeout(None, timeout_seconds)
        self._batch_timeout_seconds = default_timeout("BatchRecommend", timeout_seconds)
        self._write_timeout_seconds = default_timeout("Write", timeout_seconds)
        if hedging is not None and connection_count < 2:
            raise ValueError(f"connection_count must be at least 2 where calls are hedged, got {connection_count}")
        self._pool = connect(target, connection_count, credentials)
        self._hedger = None if hedging is None else Hedger(hedging, self._pool)

    def similar(
        self, item_ids: Sequence[str], *, options: Options = DEFAULT_OPTIONS, timeout_seconds: float | None = None
    ) -> Recommendations:
        """Return the items most like one or several seed items; raises as `recommend`."""
        return self.recommend(Similar(item_ids=item_ids, options=options), timeout_seconds=timeout_seconds)

    def personalize(
        self,
        user_id: str | None = None,
        *,
        recent_items: Sequence[WeightedItem] = (),
        options: Options = DEFAULT_OPTIONS,
        timeout_seconds: float | None = None,
    ) -> Recommendations:
        """Return the items that suit a user best; raises as `recommend`."""
        request = Personalize(user_id=user_id, recent_items=recent_items, options=options)
        return self.recommend(request, timeout_seconds=timeout_seconds)

    def related(
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
        return self.recommend(request, timeout_seconds=timeout_seconds)

    def recommend(self, request: Request, *, timeout_seconds: float | None = None) -> Recommendations:
        """Return the answer to ``request``.

        Args:
            request: What is asked.
            timeout_seconds: How long this call may take, retries included; the client's default unless set.

        Raises:
            AnnserveError: there is no answer; its class says what family of reasons it is of.
        """
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        method, message = type(request).__name__, message_of(request)
        if self._hedger is None:
            return answer_of(self._call(method, message, timeout))

        def begin(connection: Connection[grpc.Channel], seconds: float) -> Any:
            return connection.methods[method].future(message, timeout=seconds, metadata=self._metadata)

        try:
            return answer_of(self._hedger.call(begin, timeout))
        except grpc.RpcError as error:
            raise error_of_call(error) from error

    def batch(
        self, requests: Iterable[Request], *, timeout_seconds: float | None = None
    ) -> list[Recommendations | AnnserveError]:
        """Return the answer to each of up to 100 ``requests``, in their order, or why there is none.

        Batches are not hedged.

        Raises:
            AnnserveError: the call as a whole failed.
        """
        timeout = self._batch_timeout_seconds if timeout_seconds is None else timeout_seconds
        return batch_answers_of(self._call("BatchRecommend", batch_message_of(requests), timeout))

    def batches(
        self,
        requests: Iterable[Request],
        *,
        rows_per_call: int = BATCH_ROWS_MAX,
        timeout_seconds: float | None = None,
    ) -> Iterator[tuple[Request, Recommendations | AnnserveError]]:
        """Give each of any number of ``requests``, in their order, with its answer or why there is none.

        They are asked in batches, one after the other, each as large as the server allows. Where a batch fails as a
        whole each of its requests has that error, and the next batch is tried.

        Args:
            requests: What is asked; taken from as the answers are.
            rows_per_call: How many to ask at once at most, 1 to 100.
            timeout_seconds: How long one batch may take.
        """
        timeout = self._batch_timeout_seconds if timeout_seconds is None else timeout_seconds
        for asked, message in batches_of(requests, rows_per_call):
            try:
                answers = batch_answers_of(self._call("BatchRecommend", message, timeout))
            except AnnserveError as error:
                answers = [error] * len(asked)
            yield from zip(asked, answers, strict=True)

    def _call(self, method: str, message: Any, timeout_seconds: float) -> Any:
        connection, code = self._pool.take(), None
        try:
            response = connection.methods[method](message, timeout=timeout_seconds, metadata=self._metadata)
            code = grpc.StatusCode.OK
            return response
        except grpc.RpcError as error:
            failure = error_of_call(error)
            code = failure.code
            raise failure from error
        finally:
            self._pool.give_back(connection, lapsed=lapsed(code))

    @property
    def hedge_count(self) -> int:
        """How many second attempts there were so far; 0 where calls are not hedged."""
        return 0 if self._hedger is None else self._hedger.hedge_count

    def write_events(self, events: Iterable[Event], *, timeout_seconds: float | None = None) -> Written:
        """Have the server keep 1 to 500 ``events``, all or none; to call it again with the same ones does no harm.

        Raises:
            AnnserveError: it is not known that they are kept.
        """
        timeout = self._write_timeout_seconds if timeout_seconds is None else timeout_seconds
        return written_of(self._call("Write", write_message_of(events), timeout))

    def close(self) -> None:
        """Close the connections; calls under way fail."""
        for connection in self._pool.connections:
            connection.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
