"""Both clients against a scripted server: what they send, what they make of what comes back, how often they try."""

from __future__ import annotations

import re
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import code_pb2, error_details_pb2, status_pb2
from scripted_server import ATTRIBUTION, TIMEOUT_SECONDS, Script, serving, similar_response

from annserve_client import (
    AnnserveError,
    AsyncClient,
    CacheSource,
    CatalogUse,
    Client,
    DeadlineError,
    Degradation,
    ExhaustedError,
    FieldViolation,
    InvalidRequestError,
    LimitingRule,
    NotFoundError,
    Options,
    Personalize,
    PlacementUse,
    PreconditionError,
    Recommend,
    Recommendation,
    Recommendations,
    Related,
    RuleEffect,
    ScoreExplanation,
    SearchPath,
    ServerError,
    Shortfall,
    Similar,
    Source,
    UnavailableError,
    WeightedItem,
    channel,
    field,
)
from annserve_client._gen import filter_pb2 as filter_messages
from annserve_client._gen import recommendation_pb2 as messages
from annserve_client._gen import recommendation_service_pb2 as service_messages
from annserve_client.channel import SERVICE_CONFIG

PROTO = Path(__file__).parents[3] / "proto" / "annserve" / "v1"
ANSWER = Recommendations(
    results=(
        Recommendation(
            item_id="상품-1",
            score=2.5,
            source=Source.FOLD_IN,
            explanation=ScoreExplanation(likeness=None, affinity=2.5, popularity_contribution=0.0),
        ),
        Recommendation(
            item_id="item-2",
            score=1.5,
            source=Source.FOLD_IN,
            explanation=None,
            metadata={
                "price": (2.5,),
                "tags": ("상품", ""),
                "released": (datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC),),
                "stocked": (False,),
            },
        ),
    ),
    snapshot_id="s1",
    missing_ids=("nothing",),
    shortfall=Shortfall(
        requested_count=10, returned_count=2, eligible_count=2, limiting_rule=LimitingRule.CANDIDATE_ITEMS
    ),
    search_path=SearchPath.EXACT,
    selectivity=0.25,
    user_impact=0.0,
    attribution_token=ATTRIBUTION,
    stage_seconds={"search": 0.0015},
    catalog_age_seconds=2.5,
    degradations=(Degradation.CATALOG_STALE,),
    catalog_use=CatalogUse(
        bitmap_hit_count=2,
        bitmap_miss_count=0,
        candidate_round_count=0,
        checked_candidate_count=0,
        database_call_count=1,
        history_hit_count=0,
        metadata_hit_count=0,
    ),
    cache_source=CacheSource.INSTANCE,
    cache_age_seconds=1.5,
)
OPTIONS = Options(
    page_size=7,
    exclude_item_ids=["x"],
    candidate_item_ids=(),
    filter=field("price") < 5,
    read_mask=["price", "tags"],
    max_staleness_seconds=0.0,
    exclude_seen=False,
    popularity_weight=0.0,
    ef_search=64,
    exact=True,
    snapshot_id="s1",
    strict=True,
    explain=True,
    bypass_cache=True,
)
OPTIONS_MESSAGE = messages.RecommendOptions(
    page_size=7,
    exclude_item_ids=["x"],
    candidate_items=messages.CandidateItems(),
    exclude_seen=False,
    popularity_weight=0.0,
    search_parameters=messages.SearchParameters(ef_search=64, exact=True),
    consistency=messages.ConsistencyOptions(snapshot_id="s1", max_staleness=Duration(), bypass_cache=True),
    filter=filter_messages.Filter(
        condition=filter_messages.FieldCondition(
            field="price", range=filter_messages.FieldRange(below=filter_messages.FieldValue(number_value=5))
        )
    ),
    read_mask=FieldMask(paths=["price", "tags"]),
    strict=True,
    explain=True,
)

Ask = Callable[..., Awaitable[Any]]
Mistaken: Any = Options
"""As one without a type checker makes them."""


async def _blocking(
    target: str, method: str, *arguments: Any, limit: float | None = TIMEOUT_SECONDS, **more: Any
) -> Any:
    with Client(target, timeout_seconds=limit) as client:
        return getattr(client, method)(*arguments, **more)


async def _asynchronous(
    target: str, method: str, *arguments: Any, limit: float | None = TIMEOUT_SECONDS, **more: Any
) -> Any:
    async with AsyncClient(target, timeout_seconds=limit) as client:
        return await getattr(client, method)(*arguments, **more)


@pytest.fixture(params=[_blocking, _asynchronous], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """A call with a client of either kind: target, method, arguments."""
    method: Ask = request.param
    return method


async def test_answer_comes_back_as_plain_values(ask: Ask) -> None:
    with serving(Script(similar_response())) as target:
        answer = await ask(target, "similar", ["a"])

    assert answer == ANSWER
    assert [item.item_id for item in answer] == ["상품-1", "item-2"]
    assert len(answer) == 2


async def test_every_argument_of_similar_is_sent(ask: Ask) -> None:
    script = Script(similar_response())
    with serving(script) as target:
        await ask(target, "similar", ["a", "b"], options=OPTIONS)

    assert script.requests == [service_messages.SimilarRequest(item_ids=["a", "b"], options=OPTIONS_MESSAGE)]


async def test_every_argument_of_personalize_is_sent(ask: Ask) -> None:
    script = Script(service_messages.PersonalizeResponse())
    with serving(script) as target:
        await ask(target, "personalize", "u", recent_items=[WeightedItem(item_id="r", weight=2.0)], options=OPTIONS)

    assert script.requests == [
        service_messages.PersonalizeRequest(
            user_id="u", recent_items=[messages.WeightedItem(item_id="r", weight=2.0)], options=OPTIONS_MESSAGE
        )
    ]


async def test_every_argument_of_related_is_sent(ask: Ask) -> None:
    script = Script(service_messages.RelatedResponse())
    with serving(script) as target:
        await ask(
            target,
            "related",
            ["a"],
            "u",
            recent_items=[WeightedItem(item_id="r")],
            user_impact=0.0,
            options=OPTIONS,
        )

    assert script.requests == [
        service_messages.RelatedRequest(
            item_ids=["a"],
            user_id="u",
            recent_items=[messages.WeightedItem(item_id="r", weight=1.0)],
            user_impact=0.0,
            options=OPTIONS_MESSAGE,
        )
    ]


async def test_what_is_not_set_is_not_sent(ask: Ask) -> None:
    script = Script(service_messages.RelatedResponse())
    with serving(script) as target:
        await ask(target, "related", ["a"])

    assert script.requests == [service_messages.RelatedRequest(item_ids=["a"], options=messages.RecommendOptions())]


async def test_batch_gives_an_answer_or_an_error_for_each_row(ask: Ask) -> None:
    failed = status_pb2.Status(code=code_pb2.NOT_FOUND, message="no such item")
    failed.details.add().Pack(error_details_pb2.ErrorInfo(reason="UNKNOWN_ITEM", metadata={"item_id": "b"}))
    answered = similar_response()
    response = service_messages.BatchRecommendResponse(
        results=[
            service_messages.BatchRecommendResult(
                recommendations=answered.recommendations, serving_info=answered.serving_info
            ),
            service_messages.BatchRecommendResult(status=failed),
        ]
    )
    script = Script(response)
    requests = [Similar(item_ids=["a"]), Personalize(user_id="u"), Related(item_ids=["b"])]

    with serving(script) as target:
        answer, error = await ask(target, "batch", requests)

    assert answer == ANSWER
    assert isinstance(error, NotFoundError)
    assert (error.reason, error.metadata) == ("UNKNOWN_ITEM", {"item_id": "b"})
    assert [row.WhichOneof("request") for row in script.requests[0].rows] == ["similar", "personalize", "related"]


async def test_value_of_a_newer_server_is_unknown_not_an_error(ask: Ask) -> None:
    response = service_messages.SimilarResponse()
    response.recommendations.results.add(item_id="a", source=99)

    with serving(Script(response)) as target:
        answer = await ask(target, "similar", ["a"])

    assert answer.results[0].source is Source.UNKNOWN
    assert answer.results[0].metadata == {}
    assert (answer.selectivity, answer.catalog_age_seconds, answer.catalog_use) == (None, None, None)
    assert (answer.cache_source, answer.cache_age_seconds) == (None, None)
    assert answer.search_path is SearchPath.UNKNOWN


@pytest.mark.parametrize(
    ("code", "family"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequestError),
        (grpc.StatusCode.OUT_OF_RANGE, InvalidRequestError),
        (grpc.StatusCode.NOT_FOUND, NotFoundError),
        (grpc.StatusCode.FAILED_PRECONDITION, PreconditionError),
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.CANCELLED, UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ExhaustedError),
        (grpc.StatusCode.INTERNAL, ServerError),
        (grpc.StatusCode.UNIMPLEMENTED, ServerError),
        (grpc.StatusCode.UNKNOWN, ServerError),
    ],
)
async def test_each_family_of_codes_has_its_error(ask: Ask, code: grpc.StatusCode, family: type[AnnserveError]) -> None:
    with serving(Script(code)) as target, pytest.raises(AnnserveError) as caught:
        await ask(target, "similar", ["a"])

    assert type(caught.value) is family
    assert caught.value.code is code
    assert str(caught.value) == f"{code.name}: as scripted"


async def test_error_holds_what_the_server_said_of_it(ask: Ask) -> None:
    status = status_pb2.Status(code=3, message="as scripted")
    status.details.add().Pack(error_details_pb2.RetryInfo())
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INVALID_ARGUMENT", metadata={"fields": "a"}))
    bad_request = error_details_pb2.BadRequest()
    bad_request.field_violations.add(field="a", description="must be b")
    status.details.add().Pack(bad_request)
    script = Script(grpc.StatusCode.INVALID_ARGUMENT)
    script.metadata = (("grpc-status-details-bin", status.SerializeToString()), ("x-request-id", "id-1"))

    with serving(script) as target, pytest.raises(InvalidRequestError) as caught:
        await ask(target, "similar", ["a"])

    error = caught.value
    assert (error.reason, error.metadata, error.request_id) == ("INVALID_ARGUMENT", {"fields": "a"}, "id-1")
    assert error.violations == (FieldViolation(field="a", description="must be b"),)
    assert str(error) == "INVALID_ARGUMENT: as scripted"


def _with_damaged_detail() -> bytes:
    status = status_pb2.Status()
    status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff\xff")
    data: bytes = status.SerializeToString()
    return data


@pytest.mark.parametrize("details", [b"\xff\xff\xff", _with_damaged_detail()], ids=["status", "detail"])
async def test_error_with_damaged_details_keeps_its_code_message_and_request_id(ask: Ask, details: bytes) -> None:
    script = Script(grpc.StatusCode.NOT_FOUND)
    script.metadata = (("grpc-status-details-bin", details), ("x-request-id", "id-1"))

    with serving(script) as target, pytest.raises(NotFoundError) as caught:
        await ask(target, "similar", ["a"])

    assert (str(caught.value), caught.value.reason) == ("NOT_FOUND: as scripted", "")
    assert caught.value.request_id == "id-1"


async def test_failed_row_of_a_batch_has_the_request_id_among_its_details(ask: Ask) -> None:
    response = service_messages.BatchRecommendResponse()
    status = response.results.add().status
    status.code = code_pb2.INTERNAL
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INTERNAL", metadata={"request_id": "id-1"}))

    with serving(Script(response)) as target:
        (error,) = await ask(target, "batch", [Similar(item_ids=["a"])])

    assert isinstance(error, ServerError)
    assert error.request_id == "id-1"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_call_that_fails_twice_for_the_moment_succeeds(ask: Ask, code: grpc.StatusCode) -> None:
    script = Script(code, code, similar_response())
    with serving(script) as target:
        answer = await ask(target, "similar", ["a"])

    assert answer == ANSWER
    assert len(script.requests) == 3


async def test_no_call_is_tried_more_than_three_times(ask: Ask) -> None:
    script = Script(grpc.StatusCode.UNAVAILABLE)
    with serving(script) as target, pytest.raises(UnavailableError):
        await ask(target, "similar", ["a"])

    assert len(script.requests) == 3


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
async def test_lasting_failure_is_not_tried_again(ask: Ask, code: grpc.StatusCode) -> None:
    script = Script(code)
    with serving(script) as target, pytest.raises(AnnserveError):
        await ask(target, "similar", ["a"])

    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("method", "argument", "limit", "own", "expected"),
    [
        ("similar", ["a"], None, None, 3.0),
        ("batch", [Similar(item_ids=["a"])], None, None, 10.0),
        ("similar", ["a"], 5.0, None, 5.0),
        ("batch", [Similar(item_ids=["a"])], 5.0, None, 5.0),
        ("similar", ["a"], 5.0, 2.0, 2.0),
        ("similar", ["a"], None, 2.0, 2.0),
        ("batch", [Similar(item_ids=["a"])], None, 2.0, 2.0),
    ],
)
async def test_every_call_has_a_deadline(
    ask: Ask,
    method: str,
    argument: Any,
    limit: float | None,
    own: float | None,
    expected: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Ten times what is shipped, so that no stall of the machine is as long.
    shipped = channel._METHOD_CONFIGS
    longer = [entry | {"timeout": f"{10 * float(entry['timeout'].removesuffix('s'))}s"} for entry in shipped]
    monkeypatch.setattr(channel, "_METHOD_CONFIGS", longer)
    response = service_messages.BatchRecommendResponse() if method == "batch" else similar_response()
    script = Script(response)
    with serving(script) as target:
        await ask(target, method, argument, limit=limit, timeout_seconds=own)

    # On the wire a deadline is rounded up.
    assert expected * 0.5 < script.time_remaining[0] < expected * 1.1


def test_calls_take_no_longer_than_the_contract_says_unless_told() -> None:
    assert [channel.default_timeout(method, None) for method in (None, "BatchRecommend", "Write")] == [0.3, 1.0, 2.0]


async def test_server_that_does_not_answer_costs_no_more_than_the_deadline(ask: Ask) -> None:
    script = Script(similar_response())
    script.gate = threading.Event()
    with serving(script) as target:
        with pytest.raises(DeadlineError):
            await ask(target, "similar", ["a"], limit=1.0)
        assert len(script.requests) == 1


async def test_server_that_is_not_there_is_unavailable(ask: Ask) -> None:
    with serving(Script(similar_response())) as target:
        pass

    with pytest.raises(UnavailableError):
        await ask(target, "similar", ["a"], limit=5.0)


@pytest.mark.parametrize(
    ("kind", "fields", "problem"),
    [
        (Similar, {"item_ids": "85123A"}, "item_ids must be a sequence of str, got the single string '85123A'"),
        (Similar, {"item_ids": [22423]}, "item_ids[0] must be a str, got int 22423"),
        (Similar, {"item_ids": 22423}, "item_ids must be a sequence of str, got int 22423"),
        (Personalize, {"user_id": 12347}, "user_id must be a str, got int 12347"),
        (Personalize, {"user_id": 0}, "user_id must be a str, got int 0"),
        (Personalize, {"recent_items": ["sku-1"]}, "recent_items[0] must be a WeightedItem, got str 'sku-1'"),
        (Personalize, {"options": {"page_size": 3}}, "options must be an Options, got dict {'page_size': 3}"),
        (Recommend, {"placement": "home", "user_id": 5}, "user_id must be a str, got int 5"),
        (Recommend, {"placement": "home", "context": ["a"]}, "context must be a mapping of names to values, got list"),
        (Recommend, {"placement": "home", "forced_variants": {"e": 1}}, "forced_variants['e'] must be a str, got int"),
        (
            Similar,
            {"item_ids": [], "options": Mistaken(page_size="3")},
            "options.page_size must be an int, got str '3'",
        ),
        (Similar, {"item_ids": [], "options": Mistaken(filter="a < 1")}, "options.filter must be a Filter, got str"),
        (str, {}, "a request must be Similar or Personalize or Related or Recommend, got str"),
    ],
)
async def test_value_that_cannot_be_sent_is_named_with_what_it_should_be(
    ask: Ask, kind: type[Any], fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(problem)):
        await ask("127.0.0.1:1", "batch", [kind(**fields)])


async def test_request_of_a_callers_own_class_fails_as_others_do(ask: Ask) -> None:
    @dataclass(frozen=True)
    class Located(Similar):
        place: Nowhere | None = None  # type: ignore[name-defined]  # noqa: F821 - as a name that only checkers import

    with pytest.raises(TypeError, match="bad argument type"):
        await ask("127.0.0.1:1", "batch", [Located(item_ids=[3])])  # type: ignore[list-item]


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_limit_that_is_none_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="timeout_seconds must be above 0"):
        Client("127.0.0.1:1", timeout_seconds=limit)


def test_service_config_is_the_one_the_contract_ships() -> None:
    assert (PROTO / "service_config.json").read_text() == SERVICE_CONFIG


RECOMMEND = service_messages.RecommendRequest(
    placement="home",
    item_ids=["a"],
    user_id="u",
    recent_items=[messages.WeightedItem(item_id="r", weight=2.0)],
    experiment_unit="device",
    forced_variants={"trial": "b"},
    options=messages.RecommendOptions(explain=True),
)
RECOMMEND.context["hour"].number_value = 7
RECOMMEND.context["device"].string_value = "phone"
RECOMMEND.context["returning"].bool_value = False
RECOMMEND.context["since"].time_value.FromSeconds(60)
PLACED: dict[str, Any] = {
    "item_ids": ["a"],
    "user_id": "u",
    "recent_items": [WeightedItem(item_id="r", weight=2.0)],
    "context": {"hour": 7, "device": "phone", "returning": False, "since": datetime.fromtimestamp(60, UTC)},
    "experiment_unit": "device",
    "forced_variants": {"trial": "b"},
    "options": Options(explain=True),
}


def _placed_response() -> service_messages.RecommendResponse:
    row = messages.Recommendation(item_id="a", source=messages.SOURCE_EDITORIAL, fallback_step=2)
    row.explanation.user_similarity = 0.5
    row.explanation.effects.add(rule="boosts[0]", weight=2.0)
    row.explanation.effects.add(rule="caps[0]")
    response = service_messages.RecommendResponse(recommendations=messages.Recommendations(results=[row]))
    response.recommendations.placement.CopyFrom(
        messages.PlacementUse(name="home", version="v", experiment="trial", variant="b", mode="related")
    )
    response.serving_info.stage_durations.add(stage="search", row_count=200)
    response.serving_info.stage_durations.add(stage="policy")
    return response


def _check_placed(answer: Recommendations) -> None:
    assert answer.placement == PlacementUse(
        name="home",
        version="v",
        experiment="trial",
        variant="b",
        mode="related",
        suppressed_reason="",
        user_context_similarity=None,
    )
    (item,) = answer
    assert (item.source, item.fallback_step) == (Source.EDITORIAL, 2)
    assert item.explanation == ScoreExplanation(
        likeness=None,
        affinity=None,
        popularity_contribution=None,
        user_similarity=0.5,
        effects=(RuleEffect(rule="boosts[0]", weight=2.0), RuleEffect(rule="caps[0]", weight=None)),
    )
    assert answer.stage_row_counts == {"search": 200}


def test_a_placement_is_asked_by_its_name() -> None:
    script = Script(_placed_response())
    with serving(script) as address, Client(address, timeout_seconds=TIMEOUT_SECONDS) as client:
        _check_placed(client.recommend("home", **PLACED))
        client.recommend(Recommend(placement="home", **PLACED))
        with pytest.raises(TypeError, match="user_id"):
            client.recommend(Similar(item_ids=["a"]), user_id="u")  # type: ignore[call-overload]
    assert script.requests == [RECOMMEND, RECOMMEND]


async def test_a_placement_is_asked_by_its_name_without_blocking() -> None:
    script = Script(_placed_response())
    with serving(script) as address:
        async with AsyncClient(address, timeout_seconds=TIMEOUT_SECONDS) as client:
            _check_placed(await client.recommend("home", **PLACED))
    assert script.requests == [RECOMMEND]
