"""Both clients write events: what they send, how often they try, and events made of answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from scripted_server import ATTRIBUTION, TIMEOUT_SECONDS, Script, serving, similar_response

from annserve_client import (
    AsyncClient,
    Client,
    Event,
    EventType,
    PlacementUse,
    UnavailableError,
    Written,
    impression_of,
    outcome_of,
)
from annserve_client._gen import event_pb2 as messages
from annserve_client._gen import event_service_pb2 as service_messages
from annserve_client._gen import recommendation_pb2 as parts
from annserve_client.events import write_message_of

Write = Callable[..., Awaitable[Written]]
ANSWER = service_messages.WriteResponse(accepted_count=1, duplicate_count=2)
CLICK = Event(event_id="1", type=EventType.CLICK, user_id="사용자", item_ids=["a"])


async def _blocking(target: str, events: list[Event], **more: Any) -> Written:
    with Client(target, timeout_seconds=TIMEOUT_SECONDS) as client:
        return client.write_events(events, **more)


async def _asynchronous(target: str, events: list[Event], **more: Any) -> Written:
    async with AsyncClient(target, timeout_seconds=TIMEOUT_SECONDS) as client:
        return await client.write_events(events, **more)


@pytest.fixture(params=[_blocking, _asynchronous], ids=["sync", "async"])
def write(request: pytest.FixtureRequest) -> Write:
    method: Write = request.param
    return method


async def test_an_event_is_sent_with_all_it_says(write: Write) -> None:
    script = Script(ANSWER)
    event = Event(
        event_id="1",
        type=EventType.IMPRESSION,
        user_id="사용자",
        item_ids=["상품-1", "b"],
        time=datetime(2026, 11, 28, 12, 0, 0, 250_000, UTC),
        attribution_token="t",  # noqa: S106 - of an answer
        impression_id="i",
        placement=PlacementUse(name="home", version="0f", mode="related", user_context_similarity=0.5),
        context_item_ids=["c"],
        value=2.5,
    )
    with serving(script) as target:
        written = await write(target, [event, CLICK])

    assert written == Written(accepted_count=1, duplicate_count=2)
    sent, click = script.requests[0].events
    expected = messages.Event(
        event_id="1",
        type=messages.EVENT_TYPE_IMPRESSION,
        user_id="사용자",
        item_ids=["상품-1", "b"],
        attribution_token="t",  # noqa: S106 - of an answer
        impression_id="i",
        placement=parts.PlacementUse(name="home", version="0f", mode="related", user_context_similarity=0.5),
        context_item_ids=["c"],
        value=2.5,
    )
    expected.event_time.FromMilliseconds(1_795_867_200_250)
    assert sent == expected
    assert click == messages.Event(event_id="1", type=messages.EVENT_TYPE_CLICK, user_id="사용자", item_ids=["a"])


async def test_a_write_is_tried_again_and_then_given_up(write: Write) -> None:
    script = Script(grpc.StatusCode.UNAVAILABLE, ANSWER)
    with serving(script) as target:
        assert (await write(target, [CLICK])).accepted_count == 1
    assert len(script.requests) == 2

    script = Script(grpc.StatusCode.UNAVAILABLE)
    with serving(script) as target, pytest.raises(UnavailableError):
        await write(target, [CLICK])
    assert len(script.requests) == 3


def test_an_impression_is_made_of_an_answer_and_outcomes_of_it() -> None:
    response = similar_response()
    response.recommendations.placement.CopyFrom(parts.PlacementUse(name="home", variant="B", mode="similar"))
    with serving(Script(response)) as target, Client(target, timeout_seconds=TIMEOUT_SECONDS) as client:
        answer = client.similar(["a"])

    shown = impression_of(answer, "u", context_item_ids=["a"], shown_count=1)
    bought = outcome_of(shown, EventType.CONVERSION, ["상품-1"], value=3.0)

    assert (shown.type, shown.user_id, shown.item_ids) == (EventType.IMPRESSION, "u", ("상품-1",))
    assert (shown.attribution_token, shown.context_item_ids) == (ATTRIBUTION, ["a"])
    assert shown.placement == PlacementUse(name="home", variant="B", mode="similar")
    assert shown.event_id == shown.impression_id == bought.impression_id != ""
    assert (bought.user_id, bought.attribution_token, bought.value) == ("u", ATTRIBUTION, 3.0)
    assert bought.event_id not in ("", shown.event_id)
    assert len(impression_of(answer, "u").item_ids) == 2
    assert impression_of(answer, "u").event_id != impression_of(answer, "u").event_id


@pytest.mark.parametrize(
    ("mistaken", "problem"),
    [
        ({"item_ids": "abc"}, "item_ids must be a sequence of str, got the single string 'abc'"),
        ({"user_id": 12347}, "user_id must be a str, got int 12347"),
    ],
)
def test_an_event_that_cannot_be_sent_says_why(mistaken: dict[str, Any], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        write_message_of([replace(CLICK, **mistaken)])
