"""A twin of the engine, and calls to a server around it, as the tests of the edge need them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from annserve.domain.catalog import Schema
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import UnknownItemError
from annserve.domain.ports import Basis
from annserve.domain.query import Answer, Explanation, LimitingRule, Mode, Query, SearchPath, Shortfall, Source
from annserve.engine.workbench import Workbench
from annserve.service.servicer import SERVICE_NAME
from annserve.v1 import recommendation_service_pb2 as messages

TIMEOUT_SECONDS = 10.0
ITEM_IDS = tuple(f"상품-{number}" if number % 2 else f"item-{number}" for number in range(600))


class TwinRecommender:
    """Knows `ITEM_IDS`, the first the best; does what a test tells it to."""

    snapshot_id = "snapshot-twin"

    def __init__(self, executor_threads: int = 2) -> None:
        self.schema: Schema | None = None
        self._workbench = Workbench(
            ThreadPoolExecutor(executor_threads, thread_name_prefix="annserve-search"), executor_threads
        )
        self.error: Exception | None = None
        self.cost_us = 10.0
        self.queries: list[Query] = []
        self.deadlines: list[Deadline] = []
        self.threads: list[str] = []
        self.gate: threading.Event | None = None
        """What an answer waits for, after those of the first `free_count` questions."""
        self.free_count = 0
        self.slow: asyncio.Event | None = None
        """What an answer waits for on the loop, counted."""
        self.slow_count = 0
        self.entered = threading.Event()
        self.rests_on: Basis | None = Basis()
        self.changed_at: dict[str, float] = {}

    @property
    def queued_count(self) -> int:
        """How many answers are worked out in threads, or wait for one."""
        return self._workbench._job_count

    def basis(self, query: Query) -> Basis | None:
        assert isinstance(query, Query)
        return self.rests_on

    def unchanged(self, item_ids: Sequence[str], as_of: float) -> bool:
        return not any(self.changed_at.get(item_id, as_of) > as_of for item_id in item_ids)

    async def recommend(self, query: Query, deadline: Deadline = NO_DEADLINE) -> Answer:
        if self.slow is not None:
            self.slow_count += 1
            await self.slow.wait()
        return await self._workbench.run(self.cost_us, lambda _: self.answered(query, deadline), deadline)

    def answered(self, query: Query, deadline: Deadline) -> Answer:
        self.queries.append(query)
        self.deadlines.append(deadline)
        self.threads.append(threading.current_thread().name)
        self.entered.set()
        if self.gate is not None and len(self.queries) > self.free_count:
            assert self.gate.wait(TIMEOUT_SECONDS)
        if self.error is not None:
            raise self.error
        return self._answer(query)

    def _answer(self, query: Query) -> Answer:
        options = query.options
        missing = tuple(dict.fromkeys(item_id for item_id in query.item_ids if item_id not in ITEM_IDS))
        if missing and options.strict:
            raise UnknownItemError(missing[0], self.snapshot_id)
        allowed = ITEM_IDS if options.candidate_item_ids is None else options.candidate_item_ids
        kept = set(allowed) - set(options.exclude_item_ids) - set(query.item_ids)
        eligible = [item_id for item_id in ITEM_IDS if item_id in kept]
        found = eligible[: options.k]
        scores = [1.0 - ITEM_IDS.index(item_id) / len(ITEM_IDS) for item_id in found]
        shortfall = None
        if len(found) < options.k:
            shortfall = Shortfall(
                requested=options.k,
                returned=len(found),
                eligible=len(eligible),
                limiting_rule=LimitingRule.CANDIDATE_ITEM_IDS,
            )
        return Answer(
            snapshot_id=self.snapshot_id,
            item_ids=found,
            scores=scores,
            source=Source.POPULAR if missing else Source.ITEM_VECTOR,
            search_path=SearchPath.EXACT,
            selectivity=len(eligible) / len(ITEM_IDS),
            missing_ids=missing,
            user_impact=query.user_impact if query.mode is Mode.RELATED else None,
            shortfall=shortfall,
            explanation=Explanation(
                likeness_scores=scores,
                affinity_scores=[score / 2 for score in scores],
                popularity_contributions=[score / 4 for score in scores],
                stage_us=(("query_vectors", 1.5), ("search", 20.25)),
            )
            if options.explain
            else None,
        )


class Calls:
    """A channel's methods by name, each call with a deadline."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def __call__(
        self, method: str, request: Message, timeout: float | None = TIMEOUT_SECONDS, **more: Any
    ) -> Any:
        response = await self.raw(method, request.SerializeToString(), timeout=timeout, **more)
        return getattr(messages, f"{method}Response").FromString(response)

    async def raw(self, method: str, request: bytes, timeout: float | None = TIMEOUT_SECONDS, **more: Any) -> bytes:
        """Send bytes as they are and return those that come back."""
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(f"/{SERVICE_NAME}/{method}")
        return await call(request, timeout=timeout, **more)

    async def error(self, method: str, request: Message, **more: Any) -> CallError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self(method, request, **more)
        return CallError(caught.value)


class CallError:
    """A failed call and its `google.rpc` details."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.message = error.details() or ""
        self.trailing = dict(error.trailing_metadata() or ())
        self.status = status_pb2.Status.FromString(self.trailing.get("grpc-status-details-bin", b""))
        self.info = error_details_pb2.ErrorInfo()
        for detail in self.status.details:
            detail.Unpack(self.info)

    def detail(self, kind: type[Any]) -> Any:
        """Return the one detail of ``kind``."""
        (found,) = [detail for detail in self.status.details if detail.Is(kind.DESCRIPTOR)]
        message = kind()
        found.Unpack(message)
        return message
