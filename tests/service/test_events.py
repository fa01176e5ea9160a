"""EventService over a real server: what is checked, what is counted, and when a call is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from edge_twin import TIMEOUT_SECONDS, TwinRecommender
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from annserve.catalog.file_events import FileEventStore
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import CatalogUnavailableError, DeadlineExceededError, EventsUnavailableError
from annserve.domain.events import Event, EventStore, EventType, Written
from annserve.domain.query import Mode
from annserve.service import event_queue
from annserve.service.event_queue import EventQueue
from annserve.service.server import Server
from annserve.service.settings import ServerSettings
from annserve.v1 import event_pb2 as messages
from annserve.v1 import event_service_pb2 as service_messages
from annserve.v1.event_service_pb2_grpc import EventServiceStub
from annserve.v1.recommendation_service_pb2 import SimilarRequest
from annserve.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

NOW = int(time.time())


class GatedStore(FileEventStore):
    """A store that can be made to wait, and to fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.open = asyncio.Event()
        self.open.set()
        self.fails = False
        self.batches: list[int] = []

    async def write(self, events: Sequence[Event], deadline: Deadline = NO_DEADLINE) -> Written:
        self.batches.append(len(events))
        await self.open.wait()
        if self.fails:
            raise CatalogUnavailableError("it is away")
        return await super().write(events, deadline)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[GatedStore]:
    store = GatedStore(tmp_path / "events.jsonl")
    yield store
    await store.close()


@pytest.fixture
async def queue(store: GatedStore) -> AsyncIterator[EventQueue]:
    queue = EventQueue(store)
    yield queue
    store.open.set()
    await queue.close()


@pytest.fixture
async def edge(queue: EventQueue) -> AsyncIterator[grpc.aio.Channel]:
    server = Server(ServerSettings(address="127.0.0.1:0", deadline_max_ms=5_000), TwinRecommender(), events=queue)
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel
    await server.stop()


def message(event_id: str = "1", **fields: Any) -> messages.Event:
    known: dict[str, Any] = {"type": messages.EVENT_TYPE_IMPRESSION, "user_id": "사용자", "item_ids": ["a", "b"]}
    return messages.Event(event_id=event_id, **(known | fields))


async def write(channel: grpc.aio.Channel, *events: messages.Event) -> tuple[int, int]:
    stub: Any = EventServiceStub(channel)
    answer = await stub.Write(service_messages.WriteRequest(events=events), timeout=TIMEOUT_SECONDS)
    return answer.accepted_count, answer.duplicate_count


async def refused(channel: grpc.aio.Channel, *events: messages.Event) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await write(channel, *events)
    return caught.value


async def everything(store: EventStore) -> list[Event]:
    return [one async for chunk in store.read(0, 2**50) for one in chunk]


async def test_events_are_kept_with_all_they_say(edge: grpc.aio.Channel, store: GatedStore) -> None:
    full = message(
        attribution_token="token",  # noqa: S106 - of an answer
        impression_id="i",
        context_item_ids=["c"],
        placement={"name": "home", "version": "0f", "mode": "related", "user_context_similarity": 0.5},
        value=2.5,
    )
    full.event_time.FromMilliseconds(NOW * 1_000 - 1_234)

    assert await write(edge, full) == (1, 0)

    (kept,) = await everything(store)
    assert (kept.event_id, kept.type, kept.user_id, kept.item_ids) == ("1", EventType.IMPRESSION, "사용자", ("a", "b"))
    assert (kept.time_ms, kept.attribution_token, kept.impression_id) == (NOW * 1_000 - 1_234, "token", "i")
    assert (kept.context_item_ids, kept.value) == (("c",), 2.5)
    assert kept.placement is not None
    assert (kept.placement.name, kept.placement.mode, kept.placement.user_context_similarity) == (
        "home",
        Mode.RELATED,
        0.5,
    )


async def test_an_event_that_says_no_time_is_of_now(edge: grpc.aio.Channel, store: GatedStore) -> None:
    await write(edge, message())

    (kept,) = await everything(store)
    assert abs(kept.time_ms - time.time() * 1_000) < 60_000


async def test_each_call_is_told_which_of_its_own_events_were_there(edge: grpc.aio.Channel, store: GatedStore) -> None:
    await write(edge, message("1"))
    store.open.clear()
    calls = [
        asyncio.create_task(write(edge, message("1"), message("2"))),
        asyncio.create_task(write(edge, message("3"))),
        asyncio.create_task(write(edge, message("3"), message("4"), message("4"))),
    ]
    await until(lambda: len(store.batches) == 2)
    store.open.set()

    answers = await asyncio.gather(*calls)

    assert sum(accepted for accepted, _ in answers) == 3
    assert [accepted + duplicate for accepted, duplicate in answers] == [2, 1, 3]
    assert answers[0] == (1, 1)
    assert len(await everything(store)) == 4


async def test_calls_of_a_moment_are_written_at_once(
    edge: grpc.aio.Channel, store: GatedStore, queue: EventQueue
) -> None:
    store.open.clear()
    first = asyncio.create_task(write(edge, message("first")))
    await until(lambda: store.batches == [1])
    calls = [asyncio.create_task(write(edge, message(str(number)))) for number in range(40)]
    await until(lambda: len(queue._waiting) == 40)
    store.open.set()

    await asyncio.gather(first, *calls)

    assert sum(store.batches) == 41
    assert len(store.batches) <= 3


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


WRONG = {
    "events[0].event_id": message(""),
    "events[0].user_id": message(user_id="a\x00"),
    "events[0].type": message(type=messages.EVENT_TYPE_UNSPECIFIED),
    "events[0].item_ids": message(item_ids=["a"] * 501),
    "events[0].item_ids[1]": message(item_ids=["a", ""]),
    "events[0].event_time": message(event_time={"seconds": NOW + 10_000}),
    "events[0].attribution_token": message(attribution_token="x" * 65),
    "events[0].impression_id": message(impression_id="x" * 129),
    "events[0].context_item_ids": message(context_item_ids=["a"] * 101),
    "events[0].value": message(value=float("nan")),
    "events[0].value, infinite": message(value=float("-inf")),
    "events[0].value, too large": message(value=1.1e12),
    "events[0].placement.name": message(placement={"version": "1"}),
    "events[0].placement.version": message(placement={"name": "home", "version": "x" * 257}),
    "events[0].placement.mode": message(placement={"name": "home", "mode": "placement"}),
    "events[0].placement.user_context_similarity": message(
        placement={"name": "home", "user_context_similarity": float("inf")}
    ),
}


@pytest.mark.parametrize("field", WRONG)
async def test_an_event_outside_the_contract_is_named_and_none_is_kept(
    edge: grpc.aio.Channel, store: GatedStore, field: str
) -> None:
    error = await refused(edge, WRONG[field], message("good"))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert fields_of(error) == [field.partition(",")[0]]
    assert await everything(store) == []


@pytest.mark.parametrize(
    "event",
    [
        message("x" * 128, user_id="x" * 128, item_ids=["a"] * 500),
        message(attribution_token="x" * 64, impression_id="x" * 128, context_item_ids=["a"] * 100),
        message(value=-1e12),
        message(event_time={"seconds": NOW + 3_000}),
        message(event_time={"seconds": NOW - 366 * 86_400 + 7_200}),
        message(placement={"name": "x" * 256, "suppressed_reason": "x" * 256, "user_context_similarity": -1.0}),
    ],
)
async def test_an_event_at_the_bounds_is_kept(edge: grpc.aio.Channel, event: messages.Event) -> None:
    assert await write(edge, event) == (1, 0)


@pytest.mark.parametrize(
    ("time_", "told"),
    [
        ({"seconds": NOW - 366 * 86_400 - 100}, "must be at most 366 days ago"),
        ({"seconds": NOW + 10_000}, "must be at most an hour from now"),
        ({"seconds": -(2**62)}, "must be a time of the years 1 to 9999"),
        ({"seconds": NOW, "nanos": -1}, "must be a time of the years 1 to 9999"),
    ],
)
async def test_a_time_out_of_bounds_is_refused_with_the_bound(
    edge: grpc.aio.Channel, time_: dict[str, int], told: str
) -> None:
    assert told in str((await refused(edge, message(event_time=time_))).details())


async def test_a_request_has_at_least_one_event_and_at_most_500(edge: grpc.aio.Channel) -> None:
    assert await write(edge, *[message(str(number)) for number in range(500)]) == (500, 0)
    assert "at most 500" in str((await refused(edge, *[message()] * 501)).details())
    assert "at least 1" in str((await refused(edge)).details())


async def test_bytes_that_are_no_request_are_refused(edge: grpc.aio.Channel) -> None:
    method: Any = edge.unary_unary("/annserve.v1.EventService/Write")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(b"\xff\xff", timeout=TIMEOUT_SECONDS)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_store_that_is_away_is_unavailable_with_a_reason_and_when_to_come_again(
    edge: grpc.aio.Channel, store: GatedStore
) -> None:
    store.fails = True
    error = await refused(edge, message())

    info, retry = details_of(error)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert (info.reason, info.metadata["problem"]) == ("EVENTS_UNAVAILABLE", "it is away")
    assert retry.retry_delay.seconds == 1
    store.fails = False
    assert await write(edge, message()) == (1, 0)


async def test_what_has_no_room_is_refused_at_once_and_what_waits_is_kept(
    edge: grpc.aio.Channel, store: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "QUEUE_BYTES_MAX", 1_000)
    store.open.clear()
    waiting = asyncio.create_task(write(edge, message("1")))
    await until(lambda: store.batches == [1])

    error = await refused(edge, *[message(str(number)) for number in range(10)])

    assert details_of(error)[0].metadata["problem"] == "too many wait to be written"
    store.open.set()
    assert await waiting == (1, 0)


async def test_who_does_not_wait_has_his_events_kept_all_the_same(queue: EventQueue, store: GatedStore) -> None:
    store.open.clear()
    with pytest.raises(DeadlineExceededError):
        await queue.write([event("1")], 50, Deadline.after(0.05))
    store.open.set()

    await queue.close()

    assert [one.event_id for one in await everything(store)] == ["1"]


async def test_closing_writes_what_waits_and_takes_no_more(queue: EventQueue, store: GatedStore) -> None:
    store.open.clear()
    calls = [asyncio.create_task(queue.write([event(str(number))], 600_000)) for number in range(5)]
    await until(lambda: len(store.batches) == 1)
    closing = asyncio.create_task(queue.close())
    await asyncio.sleep(0)
    store.open.set()
    await closing

    assert [written.accepted_count for written in await asyncio.gather(*calls)] == [1] * 5
    assert len(await everything(store)) == 5
    with pytest.raises(EventsUnavailableError, match="the server is stopping"):
        await queue.write([event("6")], 50)


async def test_events_from_before_their_users_erasure_are_not_kept(store: GatedStore) -> None:
    queue = EventQueue(store, is_erased=lambda one: one.user_id == "gone")

    written = await queue.write([event("1", "gone"), event("2"), event("3", "gone")], 50)
    none = await queue.write([event("4", "gone")], 50)

    assert (written.accepted_count, written.duplicate_count) == (1, 2)
    assert (none.accepted_count, none.duplicate_count) == (0, 1)
    assert [one.event_id for one in await everything(store)] == ["2"]
    assert (queue.counts.accepted, queue.counts.erased) == (1, 3)
    await queue.close()


async def test_the_service_has_a_health_of_its_own(edge: grpc.aio.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(edge)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service="annserve.v1.EventService"), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_server_that_takes_no_events_does_not_know_the_service() -> None:
    server = Server(ServerSettings(address="127.0.0.1:0"), TwinRecommender())
    async with grpc.aio.insecure_channel(await server.start()) as channel:
        error = await refused(channel, message())
    await server.stop()
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def event(event_id: str, user_id: str = "u") -> Event:
    return Event(event_id=event_id, type=EventType.CLICK, user_id=user_id, item_ids=("a",), time_ms=NOW * 1_000)


def details_of(error: grpc.aio.AioRpcError) -> tuple[Any, Any]:
    metadata = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(retry)
    return info, retry


def fields_of(error: grpc.aio.AioRpcError) -> list[str]:
    metadata = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(bad)
    return [violation.field for violation in bad.field_violations]


async def test_a_store_that_hangs_leaves_room_for_calls_that_need_none(store: GatedStore) -> None:
    queue = EventQueue(store, calls_max=4)
    server = Server(ServerSettings(address="127.0.0.1:0", calls_max=8), TwinRecommender(), events=queue)
    store.open.clear()
    async with grpc.aio.insecure_channel(await server.start()) as channel:
        waiting = [asyncio.create_task(write(channel, message(str(number)))) for number in range(4)]
        await until(lambda: server.calls_under_way == 4)
        more = [asyncio.create_task(refused(channel, message("more"))) for _ in range(4)]
        # None of them waits, so there is room for this.
        stub: Any = RecommendationServiceStub(channel)
        errors = await asyncio.gather(*more)
        answer = await stub.Similar(SimilarRequest(item_ids=["item-0"]), timeout=TIMEOUT_SECONDS)
        store.open.set()
        kept = await asyncio.gather(*waiting)

    assert len(answer.recommendations.results) > 0
    assert kept == [(1, 0)] * 4
    assert {details_of(error)[0].reason for error in errors} == {"EVENTS_UNAVAILABLE"}
    await server.stop()
    await queue.close()
