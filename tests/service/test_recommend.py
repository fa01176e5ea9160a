"""Recommend through gRPC: a real engine over a small snapshot, placements made by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from edge_twin import Calls
from placement_twins import TwinExpression, TwinPlacements, placement, recipe
from serve_model import model

from annserve.cache.shared import SharedCache
from annserve.domain.query import Mode
from annserve.engine.placement_recommender import PlacementRecommender
from annserve.engine.plain_recommender import PlainRecommender
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench
from annserve.placements.recipe import (
    ContextField,
    PolicyRow,
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
async def call(snapshot: Snapshot, placements: TwinPlacements, metrics: Metrics) -> AsyncIterator[Calls]:
    core = SnapshotRecommender(snapshot)
    inner = PlainRecommender(core, Workbench(ThreadPoolExecutor(1)))
    cache = SharedCache(None)
    edge = Server(ServerSettings(address="127.0.0.1:0"), PlacementRecommender(inner, core, placements), cache, metrics)
    async with grpc.aio.insecure_channel(await edge.start()) as channel:
        yield Calls(channel)
    await edge.stop()
    cache.close()


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


async def test_a_context_that_is_not_declared_is_refused_with_what_is(call: Calls, placements: TwinPlacements) -> None:
    placements.show(placement(recipe(), context={"device": ContextField(type="string")}))
    wrong = {"device": parts.ContextValue(number_value=1), "a.b": parts.ContextValue(bool_value=True)}
    error = await call.error("Recommend", ask(item_ids=[SEED], context=wrong))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "'a.b' is not declared by placement 'home'; the names are device" in error.message
    assert "'device' must be a string, got a float" in error.message


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
