"""Recommend through gRPC: a real engine over a small snapshot, placements made by hand."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from edge_twin import Calls
from google.protobuf.timestamp_pb2 import Timestamp
from placement_twins import TwinExpression, TwinPlacements, experiment, placement, recipe
from serve_model import model

from annserve.cache.shared import SharedCache
from annserve.domain.query import Mode
from annserve.engine.placement_recommender import PlacementRecommender
from annserve.engine.plain_recommender import PlainRecommender
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench
from annserve.placements.recipe import (
    ContextField,
    Fallback,
    FallbackKind,
    Pin,
    PolicyRow,
    Recipe,
    Rotation,
    WeightRule,
)
from annserve.service.metrics import Metrics
from annserve.service.server import Server
from annserve.service.settings import ServerSettings
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import Snapshot, load_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import recommendation_pb2 as parts
from annserve.v1 import recommendation_service_pb2 as messages

SEED, OTHER, USER = "item-0", "상품-1", "user-3"
HOME = placement(recipe("home"))


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    info = build_snapshot(model(), SnapshotStore(tmp_path_factory.mktemp("snapshots")), threads=1)
    return load_snapshot(info.path)


@pytest.fixture
def placements() -> TwinPlacements:
    return TwinPlacements(HOME)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def clock() -> list[datetime]:
    """The one entry is what time it is."""
    return [datetime(2024, 5, 1, tzinfo=UTC)]


@pytest.fixture
async def address(
    snapshot: Snapshot, placements: TwinPlacements, metrics: Metrics, clock: list[datetime]
) -> AsyncIterator[str]:
    core = SnapshotRecommender(snapshot)
    inner = PlainRecommender(core, Workbench(ThreadPoolExecutor(1)))
    cache = SharedCache(None)
    placed = PlacementRecommender(inner, core, placements, now=lambda: clock[0])
    edge = Server(ServerSettings(address="127.0.0.1:0", personal_answer_ttl_ms=60_000), placed, cache, metrics)
    yield await edge.start()
    await edge.stop()
    cache.close()


@pytest.fixture
async def call(address: str) -> AsyncIterator[Calls]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield Calls(channel)


def ask(name: str = "home", **fields: Any) -> messages.RecommendRequest:
    return messages.RecommendRequest(placement=name, **fields)


async def test_a_bare_placement_answers_as_the_bare_call_and_names_itself(
    call: Calls, placements: TwinPlacements
) -> None:
    placements.show(
        HOME,
        placement(recipe("taste", Mode.PERSONALIZE)),
        placement(recipe("both", policy=(PolicyRow(when=None, mode=Mode.RELATED, user_impact=0.3),))),
    )
    bare = {
        "home": await call("Similar", messages.SimilarRequest(item_ids=[SEED])),
        "taste": await call("Personalize", messages.PersonalizeRequest(user_id=USER)),
        "both": await call("Related", messages.RelatedRequest(item_ids=[SEED], user_id=USER, user_impact=0.3)),
    }
    asked = {"home": ask("home", item_ids=[SEED]), "taste": ask("taste", user_id=USER)}
    asked["both"] = ask("both", item_ids=[SEED], user_id=USER)
    for name, mode in (("home", "similar"), ("taste", "personalize"), ("both", "related")):
        answer = (await call("Recommend", asked[name])).recommendations
        assert answer.placement == parts.PlacementUse(name=name, version="0123456789abcdef", mode=mode)
        answer.ClearField("placement")
        assert answer == bare[name].recommendations


async def test_an_unknown_placement_is_not_found(call: Calls) -> None:
    error = await call.error("Recommend", ask("nowhere"))
    assert (error.code, error.info.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_PLACEMENT")
    assert error.info.metadata["placement"] == "nowhere"


async def test_an_unknown_placement_is_told_of_those_beside_it(call: Calls, placements: TwinPlacements) -> None:
    placements.show()
    assert (await call.error("Recommend", ask("shopp"))).message == "there is no placement 'shopp'; there are none"
    placements.show(*(placement(recipe(name)) for name in ["shop_end", "shop", *map(str, range(20))]))
    error = await call.error("Recommend", ask("shopp"))
    assert error.message == "there is no placement 'shopp'; there are 4, 5, 6, 7, 8, 9, shop, shop_end and 14 more"


async def test_a_context_that_is_not_declared_is_refused_with_what_is(call: Calls, placements: TwinPlacements) -> None:
    placements.show(placement(recipe(), context={"device": ContextField(type="string")}))
    wrong = {"device": parts.ContextValue(number_value=1), "a.b": parts.ContextValue(bool_value=True)}
    error = await call.error("Recommend", ask(item_ids=[SEED], context=wrong))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "'a.b' is not declared by placement 'home'; the names are device" in error.message
    assert "'device' must be a string, got a number" in error.message


@pytest.mark.parametrize(
    ("type_", "value", "problem"),
    [
        ("double", parts.ContextValue(string_value="low"), "must be a number, got a string"),
        ("bool", parts.ContextValue(number_value=1), "must be a boolean, got a number"),
        ("timestamp", parts.ContextValue(bool_value=True), "must be a time, got a boolean"),
        ("string", parts.ContextValue(time_value=Timestamp()), "must be a string, got a time"),
    ],
)
async def test_the_types_of_a_context_are_named_as_files_name_them(
    call: Calls, placements: TwinPlacements, type_: str, value: parts.ContextValue, problem: str
) -> None:
    placements.show(placement(recipe(), context={"told": ContextField(type=type_)}))
    error = await call.error("Recommend", ask(item_ids=[SEED], context={"told": value}))
    assert f"'told' {problem}" in error.message


async def test_a_suppressed_answer_is_empty_and_says_why(
    call: Calls, placements: TwinPlacements, metrics: Metrics
) -> None:
    early = TwinExpression(lambda hour: hour < 7, "context.hour")
    policy = (PolicyRow(when=early, mode=None, suppressed="asleep"), PolicyRow(when=None, mode=Mode.SIMILAR))
    placements.show(placement(recipe(policy=policy), context={"hour": ContextField(type="double")}))
    answer = await call("Recommend", ask(item_ids=[SEED], context={"hour": parts.ContextValue(number_value=6)}))
    assert not answer.recommendations.results
    assert not answer.recommendations.HasField("shortfall")
    assert answer.recommendations.placement.suppressed_reason == "asleep"
    assert answer.recommendations.placement.mode == ""
    assert answer.serving_info.attribution_token
    labels = {"placement": "home", "variant": "", "result": "suppressed"}
    assert metrics.registry.get_sample_value("annserve_placement_answers_total", labels) == 1
    # Without an hour the row cannot be decided, so the next one is.
    assert (await call("Recommend", ask(item_ids=[SEED]))).recommendations.placement.mode == "similar"


async def test_an_explanation_says_what_rules_did_and_how_many_rows_each_stage_left(
    call: Calls, placements: TwinPlacements
) -> None:
    rule = WeightRule(name="boosts[0]", weight=2.0, request=TwinExpression(lambda: True))
    pin = Pin(name="pins[0]", rank=2, item_id=OTHER)
    placements.show(placement(recipe(mode=Mode.RELATED, weights=(rule,), pins=(pin,))))
    request = ask(item_ids=[SEED], user_id=USER, options=parts.RecommendOptions(explain=True))
    answer = await call("Recommend", request)
    first, pinned = answer.recommendations.results[:2]
    assert [(one.rule, one.weight) for one in first.explanation.effects] == [("boosts[0]", 2.0)]
    assert (pinned.item_id, pinned.source) == (OTHER, parts.SOURCE_EDITORIAL)
    assert [one.rule for one in pinned.explanation.effects] == ["boosts[0]", "pins[0]"]
    assert not pinned.explanation.effects[1].HasField("weight")
    assert first.explanation.HasField("user_similarity")
    assert first.explanation.HasField("context_similarity")
    assert answer.recommendations.placement.HasField("user_context_similarity")
    counts = {one.stage: one.row_count for one in answer.serving_info.stage_durations if one.HasField("row_count")}
    assert (counts["search"], counts["arrange"]) == (200, 10)


async def test_rows_of_the_chain_say_which_step_and_source_filled_them(call: Calls, placements: TwinPlacements) -> None:
    steps = (Fallback(kind=FallbackKind.ITEMS, item_ids=(OTHER,)), Fallback(kind=FallbackKind.POPULAR))
    placements.show(placement(recipe(limit=3, fallbacks=steps)))
    answer = (await call("Recommend", ask(item_ids=["없음"]))).recommendations
    rows = [(one.fallback_step, one.source) for one in answer.results]
    assert rows == [(1, parts.SOURCE_EDITORIAL), (2, parts.SOURCE_POPULAR), (2, parts.SOURCE_POPULAR)]
    assert list(answer.missing_ids) == ["없음"]


async def test_rows_of_a_batch_are_placed_each_with_its_own_status(call: Calls) -> None:
    rows = [
        messages.BatchRecommendRow(recommend=ask(item_ids=[SEED])),
        messages.BatchRecommendRow(recommend=ask("nowhere")),
        messages.BatchRecommendRow(similar=messages.SimilarRequest(item_ids=[SEED])),
    ]
    placed, unknown, bare = (await call("BatchRecommend", messages.BatchRecommendRequest(rows=rows))).results
    assert placed.recommendations.placement.name == "home"
    assert [one.item_id for one in placed.recommendations.results] == [
        one.item_id for one in bare.recommendations.results
    ]
    assert unknown.status.code == grpc.StatusCode.NOT_FOUND.value[0]


async def kept(call: Calls, request: messages.RecommendRequest) -> tuple[messages.RecommendResponse, bool]:
    """Return the answer, and whether it was kept."""
    answer = await call("Recommend", request)
    return answer, answer.serving_info.cache.source == parts.CACHE_SOURCE_WORKER


async def test_an_answer_is_kept_until_its_placement_changes(call: Calls, placements: TwinPlacements) -> None:
    request = ask(item_ids=[SEED])
    assert [(await kept(call, request))[1] for _ in range(2)] == [False, True]
    placements.show(placement(recipe(limit=3, version="fedcba9876543210")))
    answer, is_kept = await kept(call, request)
    assert (len(answer.recommendations.results), is_kept) == (3, False)
    placements.show(HOME)
    assert (await kept(call, request))[1]
    assert len((await kept(call, request))[0].recommendations.results) == 10


async def test_a_change_of_the_placement_that_helps_out_counts_too(call: Calls, placements: TwinPlacements) -> None:
    short = recipe(fallbacks=(Fallback(kind=FallbackKind.PLACEMENT, placement="other"),))
    other = recipe("other", fallbacks=(), limit=2, mode=Mode.PERSONALIZE)
    placements.show(placement(short), placement(other))
    request = ask(item_ids=["없음"], user_id=USER)
    first, _ = await kept(call, request)
    assert (await kept(call, request))[1]
    pinned = Recipe(
        name="other", version="2", policy=other.policy, pins=(Pin(name="pins[0]", rank=1, item_id="item-500"),)
    )
    placements.show(placement(short), placement(pinned))
    second, is_kept = await kept(call, request)
    assert not is_kept
    assert first.recommendations.results[0] != second.recommendations.results[0]


async def test_an_answer_that_reads_the_clock_is_kept_for_its_hour(
    call: Calls, placements: TwinPlacements, clock: list[datetime]
) -> None:
    late = TwinExpression(lambda hour: hour >= 12, "request.hour")
    policy = (PolicyRow(when=late, mode=Mode.PERSONALIZE), PolicyRow(when=None, mode=Mode.SIMILAR))
    placements.show(placement(recipe(policy=policy, reads_clock=True), time_zone="Asia/Kolkata"))
    request = ask(item_ids=[SEED], user_id=USER)
    modes = []
    # Half past six is noon in India.
    for hour, minute in ((6, 10), (6, 20), (6, 40), (6, 50)):
        clock[0] = clock[0].replace(hour=hour, minute=minute)
        answer, is_kept = await kept(call, request)
        modes.append((answer.recommendations.placement.mode, is_kept))
    assert modes == [("similar", False), ("similar", True), ("personalize", False), ("personalize", True)]


async def test_nothing_is_kept_of_placements_that_rotate_or_explore(call: Calls, placements: TwinPlacements) -> None:
    for changing in (
        recipe(rotation=Rotation(penalty=0.5, half_life_seconds=60.0)),
        recipe(exploration_share=0.2),
    ):
        placements.show(placement(changing))
        for _ in range(2):
            assert not (await call("Recommend", ask(item_ids=[SEED], user_id=USER))).serving_info.HasField("cache")


async def test_nothing_of_one_user_or_variant_is_ever_given_to_another(call: Calls, placements: TwinPlacements) -> None:
    """Every user suits other items, and every second one has another variant: an answer astray would show."""
    trial = experiment(
        "trial",
        {"a": recipe(mode=Mode.PERSONALIZE), "b": recipe(mode=Mode.PERSONALIZE, limit=5)},
        lambda unit: "ab"[int(unit.removeprefix("user-")) % 2],
    )
    placements.show(trial)
    expected: dict[int, Any] = {}
    for number in range(20):
        bare = await call("Personalize", messages.PersonalizeRequest(user_id=f"user-{number}"))
        expected[number] = [one.item_id for one in bare.recommendations.results][: 5 if number % 2 else 10]
    assert len({tuple(items) for items in expected.values()}) == 20
    hits = 0
    for _ in range(3):
        for number in range(20):
            answer, is_kept = await kept(call, ask(user_id=f"user-{number}"))
            hits += is_kept
            assert [one.item_id for one in answer.recommendations.results] == expected[number]
            assert answer.recommendations.placement.variant == "ab"[number % 2]
    assert hits == 40
    # A variant that is forced, or a unit that is another one, is another question.
    forced, _ = await kept(call, ask(user_id="user-2", forced_variants={"trial": "b"}))
    assert (forced.recommendations.placement.variant, len(forced.recommendations.results)) == ("b", 5)
    other, _ = await kept(call, ask(user_id="user-2", experiment_unit="user-3"))
    assert other.recommendations.placement.variant == "b"


async def test_tokens_tell_placements_versions_variants_and_circumstances_apart(
    call: Calls, placements: TwinPlacements
) -> None:
    fields = {"context": {"device": ContextField(type="string"), "since": ContextField(type="timestamp")}}
    since = parts.ContextValue()
    since.time_value.FromSeconds(60)
    tokens = []
    for one, request in (
        (placement(recipe(), **fields), ask(item_ids=[SEED])),
        (placement(recipe("other"), **fields), ask("other", item_ids=[SEED])),
        (placement(recipe(version="2"), **fields), ask(item_ids=[SEED])),
        (placement(recipe(variant="b"), **fields), ask(item_ids=[SEED])),
        (placement(recipe(), **fields), ask(item_ids=[SEED], context={"device": parts.ContextValue(string_value="x")})),
        (placement(recipe(), **fields), ask(item_ids=[SEED], context={"since": since})),
        (placement(recipe(), **fields), ask(item_ids=[SEED], options=parts.RecommendOptions(page_size=10))),
    ):
        placements.show(one)
        token = (await call("Recommend", request)).serving_info.attribution_token
        request.options.consistency.bypass_cache = True
        assert (await call("Recommend", request)).serving_info.attribution_token == token
        tokens.append(token)
    assert len(set(tokens)) == len(tokens)


async def test_people_read_what_a_placement_did(call: Calls, address: str, placements: TwinPlacements) -> None:
    rule = WeightRule(name="boosts[0]", weight=2.0, request=TwinExpression(lambda hour: hour < 8, "context.hour"))
    steps = (Fallback(kind=FallbackKind.POPULAR),)
    one = recipe(
        mode=Mode.RELATED, weights=(rule,), pins=(Pin(name="pins[0]", rank=1, item_id=OTHER),), fallbacks=steps
    )
    variants = experiment("trial", {"a": one, "b": replace(one, limit=2)}, lambda _: "a")
    placements.show(replace(variants, context={"hour": ContextField(type="double")}))
    shown = await annserve(
        address, "recommend", "--placement", "home", "--item", SEED, "--user", USER, "--context", "hour=7",
        "--variant", "trial=b", "--explain",
    )  # fmt: skip
    assert "user similarity" in shown.stdout
    assert f"1 │ {OTHER}" in shown.stdout
    assert "boosts[0] x2, pins[0]" in shown.stdout
    assert "placement home, version 0123456789abcdef, experiment trial: b; asked related" in shown.stderr
    assert "search" in shown.stderr
    assert "200 rows" in shown.stderr
    assert call is not None

    read = await annserve(address, "recommend", "--placement", "home", "--item", "없음", "--json")
    answer = json.loads(read.stdout)
    assert answer["placement"]["variant"] == "a"
    assert {one["fallback_step"] for one in answer["results"]} == {1}


async def annserve(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person would, beside the server of this process."""
    command = [sys.executable, "-m", "annserve.cli", "query", *arguments, "--address", address, "--timeout", "10"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done
