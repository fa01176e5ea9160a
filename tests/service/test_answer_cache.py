"""Whole answers that are kept: given again where they are the same answer, and never anywhere else."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from edge_twin import TIMEOUT_SECONDS, Calls, TwinRecommender
from google.protobuf.duration_pb2 import Duration

from annserve.cache.shared import SharedCache
from annserve.domain.catalog import Schema
from annserve.domain.errors import CatalogUnavailableError
from annserve.domain.filter import Field, FieldType
from annserve.domain.ports import Basis
from annserve.domain.query import Answer, Degradation, Query
from annserve.service.answers import Answers
from annserve.service.cache_admin import WriterCacheAdmin
from annserve.service.server import Server
from annserve.service.settings import ServerSettings
from annserve.service.transport import TransportName
from annserve.v1 import recommendation_pb2 as parts
from annserve.v1 import recommendation_service_pb2 as messages

SCHEMA = Schema((Field(name="name", type=FieldType.STRING, path="name"),))
SIMILAR = messages.SimilarRequest(item_ids=["item-0"], options=parts.RecommendOptions(page_size=3))


class AnsweringTwin(TwinRecommender):
    """Answers each user differently, says so in its scores, and changes its answers as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.change: Callable[[Answer], Answer] = lambda answer: answer
        self.answered_count = 0

    async def recommend(self, query: Query, *more: Any) -> Answer:
        self.answered_count += 1
        await asyncio.sleep(0)
        answer = await super().recommend(query, *more)
        user = 0.0 if query.user_id is None else float(query.user_id.removeprefix("user-"))
        return self.change(replace(answer, scores=[score + user for score in answer.scores]))


@pytest.fixture
def answering() -> AnsweringTwin:
    return AnsweringTwin()


@pytest.fixture
async def calls(answering: AnsweringTwin) -> AsyncIterator[Calls]:
    settings = ServerSettings(address="127.0.0.1:0", drain_grace_ms=5_000, personal_answer_ttl_ms=100)
    cache = SharedCache(None)
    edge = Server(settings, answering, cache)
    address = await edge.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield Calls(channel)
    await edge.stop()
    cache.close()


async def test_an_equal_request_is_answered_without_the_engine(calls: Calls, answering: AnsweringTwin) -> None:
    first = await calls("Similar", SIMILAR)
    await asyncio.sleep(0.02)
    second = await calls("Similar", SIMILAR)

    assert answering.answered_count == 1
    assert second.recommendations == first.recommendations
    assert second.serving_info.attribution_token == first.serving_info.attribution_token
    assert first.serving_info.cache == parts.CacheUse(source=parts.CACHE_SOURCE_NONE)
    assert second.serving_info.cache.source == parts.CACHE_SOURCE_WORKER
    assert 0 < second.serving_info.cache.age.ToNanoseconds() < TIMEOUT_SECONDS * 1e9
    assert second.serving_info.cache.age.ToNanoseconds() % 10_000_000 == 0


async def test_a_kept_answer_is_found_before_a_call_is_begun(
    answering: AnsweringTwin, transport: TransportName, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object) -> None:
        raise RuntimeError("a call was begun")

    cache, request = SharedCache(None), messages.PersonalizeRequest(user_id="user-1")
    edge = Server(ServerSettings(address="127.0.0.1:0", transport=transport), answering, cache)
    try:
        async with grpc.aio.insecure_channel(await edge.start()) as channel:
            calls = Calls(channel)
            first = await calls("Personalize", request)
            monkeypatch.setattr(Answers, "answer", fails)
            second = await calls("Personalize", request)
    finally:
        await edge.stop()
        cache.close()

    assert second.recommendations == first.recommendations
    assert answering.answered_count == 1


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Personalize", messages.PersonalizeRequest(user_id="user-1")),
        ("Related", messages.RelatedRequest(item_ids=["item-0"], user_id="user-1")),
    ],
)
async def test_nothing_of_one_user_is_ever_given_to_another(
    calls: Calls, answering: AnsweringTwin, method: str, request_: Any
) -> None:
    """The twin adds the number of the user to every score: an answer that went astray would be known by it."""
    for _ in range(3):
        for number in range(1, 30):
            request_.user_id = f"user-{number}"
            answer = (await calls(method, request_)).recommendations
            assert {int(result.score) for result in answer.results} <= {number, number + 1}
            assert answer.results[-1].score == pytest.approx(number + 1 - 9 / 600, abs=0.01)
    assert 29 <= answering.answered_count < 3 * 29
    request_.ClearField("user_id")
    if method == "Related":
        assert (await calls(method, request_)).recommendations.results[0].score < 1


async def test_an_answer_for_a_user_is_kept_for_less_long(calls: Calls, answering: AnsweringTwin) -> None:
    request = messages.PersonalizeRequest(user_id="user-1")
    await calls("Personalize", request)
    await calls("Personalize", request)
    assert answering.answered_count == 1
    await calls("Similar", SIMILAR)
    end = time.monotonic() + TIMEOUT_SECONDS
    while answering.answered_count == 2 and time.monotonic() < end:
        await calls("Personalize", request)
    assert answering.answered_count == 3
    await calls("Similar", SIMILAR)
    assert answering.answered_count == 3


async def test_methods_do_not_share_answers_even_where_their_requests_are_the_same_bytes(
    calls: Calls, answering: AnsweringTwin
) -> None:
    similar = messages.SimilarRequest(item_ids=["item-0"])
    related = messages.RelatedRequest(item_ids=["item-0"])
    assert similar.SerializeToString() == related.SerializeToString()
    await calls("Similar", similar)
    answer = await calls("Related", related)
    assert answering.answered_count == 2
    assert answer.recommendations.HasField("user_impact")


@pytest.mark.parametrize(
    "options",
    [
        parts.RecommendOptions(explain=True),
        parts.RecommendOptions(consistency=parts.ConsistencyOptions(bypass_cache=True)),
        parts.RecommendOptions(consistency=parts.ConsistencyOptions(max_staleness=Duration())),
        parts.RecommendOptions(exclude_item_ids=[f"item-{number}" for number in range(500)]),
    ],
    ids=["explain", "bypass_cache", "max_staleness", "long"],
)
async def test_what_must_be_made_anew_is(
    calls: Calls, answering: AnsweringTwin, options: parts.RecommendOptions
) -> None:
    request = messages.SimilarRequest(item_ids=["item-0"], options=options)
    await calls("Similar", request)
    answer = await calls("Similar", request)
    assert answering.answered_count == 2
    assert not answer.serving_info.HasField("cache")
    assert answer.serving_info.attribution_token


async def test_an_error_is_not_kept(calls: Calls, answering: AnsweringTwin) -> None:
    answering.error = CatalogUnavailableError("down")
    await calls.error("Similar", SIMILAR)
    answering.error = None
    assert (await calls("Similar", SIMILAR)).recommendations.results


async def test_a_degraded_or_unsure_answer_is_given_once_with_all_it_says(
    calls: Calls, answering: AnsweringTwin
) -> None:
    answering.rests_on = Basis(versions=(7,), age_seconds=1.0)
    answering.change = lambda answer: replace(
        answer, degradations=(Degradation.HISTORY_UNAVAILABLE,), catalog_age_seconds=4.5
    )
    info = (await calls("Similar", SIMILAR)).serving_info
    assert list(info.degradations) == [parts.DEGRADATION_HISTORY_UNAVAILABLE]
    assert info.catalog_age.ToNanoseconds() == 4_500_000_000
    answering.change = lambda answer: replace(answer, selectivity=None)
    await calls("Similar", SIMILAR)
    answering.change = lambda answer: answer
    answer = await calls("Similar", SIMILAR)
    assert answering.answered_count == 3
    assert not answer.serving_info.degradations
    assert answer.recommendations.HasField("selectivity")


async def test_an_answer_goes_with_what_it_rests_on_and_its_age_is_that_of_now(
    calls: Calls, answering: AnsweringTwin
) -> None:
    answering.rests_on = Basis(versions=(1, 2), age_seconds=0.5)
    await calls("Similar", SIMILAR)
    answering.rests_on = Basis(versions=(1, 2), age_seconds=1.5)
    info = (await calls("Similar", SIMILAR)).serving_info
    assert answering.answered_count == 1
    assert info.catalog_age.ToNanoseconds() == 1_500_000_000
    answering.rests_on = Basis(versions=(1, 3), age_seconds=0.5)
    await calls("Similar", SIMILAR)
    assert answering.answered_count == 2
    answering.rests_on = None
    assert not (await calls("Similar", SIMILAR)).serving_info.HasField("cache")
    assert answering.answered_count == 3


async def test_an_answer_under_which_something_changed_is_not_kept(calls: Calls, answering: AnsweringTwin) -> None:
    def change(answer: Answer) -> Answer:
        answering.rests_on = Basis(versions=(2,))
        return answer

    answering.rests_on, answering.change = Basis(versions=(1,)), change
    await calls("Similar", SIMILAR)
    answering.rests_on, answering.change = Basis(versions=(1,)), lambda answer: answer
    await calls("Similar", SIMILAR)
    assert answering.answered_count == 2


async def test_metadata_is_given_again_only_while_no_item_of_the_answer_has_changed(
    calls: Calls, answering: AnsweringTwin
) -> None:
    answering.schema = SCHEMA
    answering.rests_on = Basis(as_of=10.0)
    request = messages.SimilarRequest(item_ids=["item-0"])
    request.options.read_mask.paths.append("name")
    answering.change = lambda answer: replace(answer, metadata=[{"name": ("old",)} for _ in answer.item_ids])
    results = (await calls("Similar", request)).recommendations.results
    returned, elsewhere = results[3].item_id, "item-500"

    answering.change = lambda answer: replace(answer, metadata=[{"name": ("new",)} for _ in answer.item_ids])
    answering.changed_at = {elsewhere: 11.0, returned: 9.0}
    results = (await calls("Similar", request)).recommendations.results
    assert results[3].metadata["name"].values[0].string_value == "old"
    answering.changed_at = {returned: 11.0}
    answering.rests_on = Basis(as_of=12.0)
    for _ in range(3):
        results = (await calls("Similar", request)).recommendations.results
        assert results[3].metadata["name"].values[0].string_value == "new"
    assert answering.answered_count == 2


async def test_equal_requests_at_one_moment_are_one_question(
    calls: Calls, answering: AnsweringTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine that stands still would have them ask for themselves.
    monkeypatch.setattr("annserve.cache.shared.WAIT_SECONDS", TIMEOUT_SECONDS)
    answering.cost_us = 10_000.0  # In a thread, so that all are there before it is answered.
    answers = await asyncio.gather(*(calls("Similar", SIMILAR) for _ in range(50)))
    assert answering.answered_count == 1
    assert len({answer.recommendations.SerializeToString(deterministic=True) for answer in answers}) == 1


async def test_without_a_cache_every_request_is_answered_by_the_engine(server: str, twin: TwinRecommender) -> None:
    async with grpc.aio.insecure_channel(server) as channel:
        call = Calls(channel)
        for _ in range(2):
            answer = await call("Similar", SIMILAR)
            assert not answer.serving_info.HasField("cache")
    assert len(twin.queries) == 2


async def test_an_instance_knows_what_its_workers_are_asked_and_forgets_on_demand(answering: AnsweringTwin) -> None:
    with tempfile.TemporaryDirectory(prefix="annserve-test-") as name:
        admin = WriterCacheAdmin(Path(name), 8 << 20)
        admin.start()
        cache = SharedCache(Path(name))
        edge = Server(ServerSettings(address="127.0.0.1:0"), answering, cache)
        async with grpc.aio.insecure_channel(await edge.start()) as channel:
            call = Calls(channel)
            requests = [SIMILAR] * 8 + [messages.SimilarRequest(item_ids=["item-2"])] * 2
            for request in requests:
                await call("Similar", request)
            end = time.monotonic() + TIMEOUT_SECONDS
            while not (hot := await admin.hot_keys(5)) and time.monotonic() < end:
                await asyncio.sleep(0.05)
            assert [item.item_id for item in hot] == ["item-0", "item-2"]
            assert [item.share for item in hot] == pytest.approx([0.8, 0.2])
            assert [item.hit_ratio for item in hot] == pytest.approx([7 / 8, 1 / 2])
            stats = await admin.stats()
            assert (stats.worker_hit_count, stats.instance_hit_count, stats.miss_count) == (8, 0, 2)
            assert stats.entry_count == 2
            assert 0 < stats.size_bytes < stats.size_bytes_max == 8 << 20

            await admin.flush()
            while (await admin.stats()).entry_count and time.monotonic() < end:
                await asyncio.sleep(0.05)
            assert (await admin.stats()).entry_count == 0
        await edge.stop()
        cache.close()
        admin.stop()
