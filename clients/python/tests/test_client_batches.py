"""Any number of requests in batches, and placements; both clients against a scripted server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from scripted_server import TIMEOUT_SECONDS, Script, serving

from annserve_client import (
    AnnserveError,
    AsyncClient,
    Client,
    Options,
    PlacementUse,
    Recommend,
    Recommendations,
    Request,
    RuleEffect,
    ServerError,
    Similar,
    WeightedItem,
)
from annserve_client._gen import recommendation_pb2 as messages
from annserve_client._gen import recommendation_service_pb2 as service_messages

Answers = list[tuple[Request, Recommendations | AnnserveError]]
AskAll = Callable[..., Awaitable[Answers]]


class Batches(Script):
    """Answers each row with the ids that it asks about; fails the batches whose turn is in ``failing``."""

    def __init__(self, *, failing: Iterable[int] = ()) -> None:
        super().__init__(None)
        self.failing = frozenset(failing)

    def play(self, request: Any, context: grpc.ServicerContext) -> Any:
        turn = len(self.requests)
        super().play(request, context)
        if turn in self.failing:
            context.abort(grpc.StatusCode.INTERNAL, "as scripted")
        response = service_messages.BatchRecommendResponse()
        for row in request.rows:
            response.results.add().recommendations.missing_ids.extend(row.similar.item_ids)
        return response


async def _blocking(target: str, requests: Iterable[Request], **more: Any) -> Answers:
    with Client(target, timeout_seconds=TIMEOUT_SECONDS) as client:
        return list(client.batches(requests, **more))


async def _asynchronous(target: str, requests: Iterable[Request], **more: Any) -> Answers:
    async with AsyncClient(target, timeout_seconds=TIMEOUT_SECONDS) as client:
        return [pair async for pair in client.batches(requests, **more)]


@pytest.fixture(params=[_blocking, _asynchronous], ids=["sync", "async"])
def ask_all(request: pytest.FixtureRequest) -> AskAll:
    method: AskAll = request.param
    return method


def _similar(count: int, options: Options | None = None) -> list[Similar]:
    return [Similar(item_ids=[str(number)], options=options or Options()) for number in range(count)]


async def test_every_request_has_its_own_answer_in_order(ask_all: AskAll) -> None:
    script, requests = Batches(), _similar(250)
    with serving(script) as target:
        pairs = await ask_all(target, requests)

    assert [request for request, _ in pairs] == requests
    assert [answer.missing_ids for _, answer in pairs if isinstance(answer, Recommendations)] == [
        (str(number),) for number in range(250)
    ]
    assert [len(batch.rows) for batch in script.requests] == [100, 100, 50]


async def test_batch_that_fails_costs_its_own_rows_only(ask_all: AskAll) -> None:
    with serving(Batches(failing=[1])) as target:
        pairs = await ask_all(target, _similar(6), rows_per_call=2)

    assert [isinstance(answer, ServerError) for _, answer in pairs] == [False, False, True, True, False, False]


async def test_page_sizes_of_a_batch_stay_within_the_servers_bound(ask_all: AskAll) -> None:
    script = Batches()
    with serving(script) as target:
        await ask_all(target, _similar(25, Options(page_size=500)))

    assert [len(batch.rows) for batch in script.requests] == [10, 10, 5]


async def test_batch_stays_within_the_servers_bound_of_bytes(ask_all: AskAll) -> None:
    script = Batches()
    heavy = Options(candidate_item_ids=["x" * 120] * 1_000)
    with serving(script) as target:
        await ask_all(target, _similar(9, heavy))

    assert max(batch.ByteSize() for batch in script.requests) <= 640 * 1024
    assert [len(batch.rows) for batch in script.requests] == [5, 4]


async def test_no_request_is_no_call(ask_all: AskAll) -> None:
    script = Batches()
    with serving(script) as target:
        assert await ask_all(target, []) == []

    assert script.requests == []


@pytest.mark.parametrize("rows", [0, 101])
async def test_rows_that_no_server_takes_are_refused(ask_all: AskAll, rows: int) -> None:
    with pytest.raises(ValueError, match=f"rows_per_call must be 1 to 100, got {rows}"):
        await ask_all("127.0.0.1:1", _similar(1), rows_per_call=rows)


RECOMMEND = Recommend(
    placement="home",
    item_ids=["a"],
    user_id="u",
    recent_items=[WeightedItem(item_id="r")],
    context={"device": "phone", "hour": 7, "member": True, "now": datetime(2024, 1, 1, tzinfo=UTC)},
    experiment_unit="s",
    forced_variants={"order": "b"},
)
RECOMMEND_MESSAGE = service_messages.RecommendRequest(
    placement="home",
    item_ids=["a"],
    user_id="u",
    recent_items=[messages.WeightedItem(item_id="r", weight=1.0)],
    context={
        "device": messages.ContextValue(string_value="phone"),
        "hour": messages.ContextValue(number_value=7.0),
        "member": messages.ContextValue(bool_value=True),
        "now": messages.ContextValue(time_value=Timestamp(seconds=1_704_067_200)),
    },
    experiment_unit="s",
    forced_variants={"order": "b"},
    options=messages.RecommendOptions(),
)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_placement_is_asked_and_says_how_it_answered(kind: type[Client | AsyncClient]) -> None:
    response = service_messages.RecommendResponse()
    result = response.recommendations.results.add(item_id="a", fallback_step=2)
    result.explanation.user_similarity = 0.5
    result.explanation.effects.add(rule="boosts[0]", weight=2.0)
    result.explanation.effects.add(rule="diversity")
    response.recommendations.placement.name = "home"
    response.recommendations.placement.version = "0123456789abcdef"
    script = Script(response)

    with serving(script) as target:
        client = kind(target, timeout_seconds=TIMEOUT_SECONDS)
        asked = client.recommend(RECOMMEND)
        answer = asked if isinstance(asked, Recommendations) else await asked
        closed = client.close()
        if closed is not None:
            await closed

    assert script.requests == [RECOMMEND_MESSAGE]
    assert answer.placement == PlacementUse(
        name="home",
        version="0123456789abcdef",
        experiment="",
        variant="",
        mode="",
        suppressed_reason="",
        user_context_similarity=None,
    )
    (found,) = answer
    assert found.fallback_step == 2
    assert found.explanation is not None
    assert (found.explanation.user_similarity, found.explanation.context_similarity) == (0.5, None)
    assert found.explanation.effects == (
        RuleEffect(rule="boosts[0]", weight=2.0),
        RuleEffect(rule="diversity", weight=None),
    )


async def test_placement_is_a_row_of_a_batch() -> None:
    script = Batches()
    with serving(script) as target, Client(target, timeout_seconds=TIMEOUT_SECONDS) as client:
        client.batch([RECOMMEND])

    assert [row.recommend for row in script.requests[0].rows] == [RECOMMEND_MESSAGE]
