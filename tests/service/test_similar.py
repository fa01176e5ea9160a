"""Similar calls that come together: their answers are, to the last bit, those that each would get by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Never

import grpc
import numpy as np
import pytest
from edge_twin import TIMEOUT_SECONDS, Calls
from google.protobuf.field_mask_pb2 import FieldMask
from serve_model import model

from annserve.cache.shared import Found, SharedCache, Turn
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import InvalidArgumentError
from annserve.domain.fresh import FreshChange
from annserve.domain.model import Model
from annserve.domain.query import Answer, Mode, Options, Query
from annserve.engine.fresh_state import FreshState
from annserve.engine.plain_recommender import PlainRecommender
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.similar_together import SimilarTogether
from annserve.engine.workbench import Workbench
from annserve.search.cost import CostModel
from annserve.service.admission import WAIT_SECONDS_MAX
from annserve.service.answers import Answers
from annserve.service.attribution import SeedTokens, attribution_token
from annserve.service.call_handling import CallHandling
from annserve.service.metrics import Metrics
from annserve.service.server import Server
from annserve.service.servicer import SERVICE_NAME, SIMILAR
from annserve.service.settings import ServerSettings
from annserve.service.similar import PlainQuestion, PlainSimilar
from annserve.service.transport import TransportName
from annserve.service.wire import varint
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import Snapshot, load_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import filter_pb2
from annserve.v1 import recommendation_pb2 as parts
from annserve.v1 import recommendation_service_pb2 as messages

PLAIN = {
    "nothing": None,
    "empty": parts.RecommendOptions(),
    "page_size": parts.RecommendOptions(page_size=3),
    "one": parts.RecommendOptions(page_size=1),
    "without_effect": parts.RecommendOptions(exclude_seen=False, popularity_weight=0.5),
}
OTHERS = {
    "explain": parts.RecommendOptions(explain=True),
    "strict": parts.RecommendOptions(strict=True),
    "exact": parts.RecommendOptions(search_parameters=parts.SearchParameters(exact=True)),
    "ef_search": parts.RecommendOptions(search_parameters=parts.SearchParameters(ef_search=200)),
    "excluded": parts.RecommendOptions(exclude_item_ids=["item-2"]),
    "candidates": parts.RecommendOptions(candidate_items=parts.CandidateItems(item_ids=["item-2"])),
    "pinned": parts.RecommendOptions(consistency=parts.ConsistencyOptions(snapshot_id="elsewhere")),
    "bypass": parts.RecommendOptions(consistency=parts.ConsistencyOptions(bypass_cache=True)),
    "too_many": parts.RecommendOptions(page_size=501),
    "read_mask": parts.RecommendOptions(read_mask=FieldMask(paths=["name"])),
    "filter": parts.RecommendOptions(filter=filter_pb2.Filter()),
}


class CountingRecommender(PlainRecommender):
    """Counts what is asked one by one."""

    asked_count = 0

    async def recommend(self, query: Query, deadline: Deadline = NO_DEADLINE) -> Answer:
        self.asked_count += 1
        return await super().recommend(query, deadline)


@dataclass(frozen=True)
class Served:
    """A snapshot's recommender, by itself and for many."""

    one_by_one: CountingRecommender
    together: SimilarTogether
    items: list[str]

    async def alone(self, data: bytes) -> bytes:
        """Return the answer by the ordinary way."""
        return await Answers(self.one_by_one).answer(SIMILAR, data, NO_DEADLINE)


def long_ids() -> Model:
    """Return a model whose ids are of all lengths that there are."""
    trained = model()
    object.__setattr__(trained, "item_ids", [f"{n}-" + "x" * (n % 125) for n in range(len(trained.item_ids))])
    return trained


@pytest.fixture(scope="session", params=[model, long_ids], ids=["short", "long"])
def snapshot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    info = build_snapshot(request.param(), SnapshotStore(tmp_path_factory.mktemp("similar")), threads=1)
    return load_snapshot(info.path, cost=CostModel(exact_us=1e6))


@pytest.fixture
def served(snapshot: Snapshot) -> Served:
    recommender = SnapshotRecommender(snapshot)
    plain = CountingRecommender(recommender, Workbench(ThreadPoolExecutor(1)))
    return Served(plain, SimilarTogether(recommender), [snapshot.items.id(row) for row in range(len(snapshot.items))])


@pytest.mark.parametrize("name", PLAIN)
async def test_answers_are_the_same_bytes_as_one_by_one(served: Served, name: str) -> None:
    similar = PlainSimilar(served.together)
    requests = [
        messages.SimilarRequest(item_ids=[item_id], options=PLAIN[name]).SerializeToString() for item_id in served.items
    ]

    for start in range(0, len(requests), 25):
        batch = requests[start : start + 25]
        for data, answer in zip(batch, similar.answers(batch), strict=True):
            # The length of an id of 128 bytes takes two: such a request is left.
            assert (data[1] == 0x80) if answer is None else (answer == await served.alone(data))


@pytest.mark.parametrize("name", OTHERS)
def test_what_asks_for_more_is_left_to_be_answered_by_itself(served: Served, name: str) -> None:
    request = messages.SimilarRequest(item_ids=served.items[:1], options=OTHERS[name])

    assert PlainSimilar(served.together).answers([request.SerializeToString()] * 2) == [None, None]


def test_what_is_no_request_about_one_item_that_is_there_is_left(served: Served) -> None:
    first, second = served.items[:2]
    similar = PlainSimilar(served.together)
    good = messages.SimilarRequest(item_ids=[first]).SerializeToString()
    others = [
        b"",
        b"\x0a",
        b"\x0a\x00",
        b"\x0a\x02\xff\xfe",
        good[:-1],
        good + b"\x0a",
        good + b"\x12\x05",
        b"\x12\x00" + good,
        messages.SimilarRequest(item_ids=[first, second]).SerializeToString(),
        messages.SimilarRequest(item_ids=[first, first]).SerializeToString(),
        messages.SimilarRequest(item_ids=["nobody"]).SerializeToString(),
        messages.SimilarRequest(item_ids=["nobody" * 30]).SerializeToString(),
        messages.SimilarRequest(options=parts.RecommendOptions(page_size=3)).SerializeToString(),
    ]

    first_answer, *nothing, last_answer = similar.answers([good, *others, good])

    assert nothing == [None] * len(others)
    assert first_answer is not None
    assert first_answer == last_answer


async def test_a_request_that_is_refused_alone_is_refused_after_it_came_with_others(
    served: Served, cache: SharedCache
) -> None:
    similar, answers = PlainSimilar(served.together), Answers(served.one_by_one, cache)
    good = messages.SimilarRequest(item_ids=served.items[:1], options=PLAIN["page_size"]).SerializeToString()
    item_bytes = good[1] + 2
    cut = [good[:length] for length in range(len(good)) if length != item_bytes]
    bad = [*cut, b"\x0a\x00\x12\x00", b"\x0a\x03a\x01b", messages.SimilarRequest(item_ids=[""]).SerializeToString()]

    assert answers.together(SIMILAR, similar, bad) == [None] * len(bad)

    for data in bad:
        with pytest.raises(InvalidArgumentError):
            await answers.answer(SIMILAR, data, NO_DEADLINE)
        assert answers.kept(SIMILAR, data) is None


async def test_answers_say_how_many_items_there_are_now(snapshot: Snapshot) -> None:
    fresh = FreshState(snapshot)
    recommender = SnapshotRecommender(snapshot, fresh)
    ordinary = Answers(PlainRecommender(recommender, Workbench(ThreadPoolExecutor(1))))
    similar = PlainSimilar(SimilarTogether(recommender))
    data = [messages.SimilarRequest(item_ids=[snapshot.items.id(row)]).SerializeToString() for row in range(0, 100, 4)]
    before = similar.answers(data)

    vector = -snapshot.item_vectors[0]
    fresh.apply([FreshChange(item_id="new", number=0, vector=vector, popularity=0.0, is_deleted=False)], version=1)
    after = similar.answers(data)

    assert sum(answer is not None for answer in after) > len(data) / 2
    for one, old, new in zip(data, before, after, strict=True):
        assert new is None or (new != old and new == await ordinary.answer(SIMILAR, one, NO_DEADLINE))


async def test_fields_that_are_unknown_change_nothing(served: Served) -> None:
    data = messages.SimilarRequest(item_ids=served.items[:1]).SerializeToString() + b"\xa2\x06\x03abc"

    assert PlainSimilar(served.together).answers([data]) == [await served.alone(data)]


async def test_endings_and_ids_are_forgotten_before_they_are_too_many(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annserve.service.similar._ENDINGS_KEPT", 4)
    monkeypatch.setattr("annserve.service.similar._IDS_KEPT", 32)
    similar = PlainSimilar(served.together)

    for number, item_id in enumerate(served.items[:60]):
        options = parts.RecommendOptions(page_size=number % 7)
        data = messages.SimilarRequest(item_ids=[item_id], options=options).SerializeToString()
        assert similar.answers([data]) == [await served.alone(data)]
        assert len(similar._endings) <= 4
        assert len(similar._results) <= 32


def test_lengths_are_written_as_protobuf_writes_them() -> None:
    for value in (0, 1, 127, 128, 300, 16_383, 16_384, 2_097_151, 2_097_152, 2**31 - 1):
        written = parts.RecommendOptions(page_size=value).SerializeToString()[1:]
        assert value == 0 or varint(value) == written


def test_a_token_is_that_of_the_whole_question() -> None:
    for item_id in ("a", "상품", "it's", 'say "x"', "back\\slash", "both ' and \""):
        for options in (Options(), Options(k=7), Options(popularity_weight=0.5, exclude_seen=False)):
            query = Query(mode=Mode.SIMILAR, item_ids=(item_id,), options=options)
            assert SeedTokens("snapshot", options).of(item_id) == attribution_token("snapshot", query)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def calls(served: Served, metrics: Metrics, transport: TransportName) -> AsyncIterator[Calls]:
    settings = ServerSettings(address="127.0.0.1:0", transport=transport)
    edge = Server(settings, served.one_by_one, metrics=metrics, similar=served.together)
    async with grpc.aio.insecure_channel(await edge.start()) as channel:
        yield Calls(channel)
    await edge.stop()


def counted(metrics: Metrics, code: str) -> float:
    metrics.publish()
    labels = {"rpc_method": f"{SERVICE_NAME}/Similar", "rpc_response_status_code": code}
    return metrics.registry.get_sample_value("rpc_server_call_duration_seconds_count", labels) or 0.0


async def test_calls_of_all_kinds_at_once_each_get_their_own_answer(
    calls: Calls, served: Served, metrics: Metrics
) -> None:
    rng = np.random.default_rng(3)
    short = [item_id for item_id in served.items if len(item_id.encode()) < 128]
    plain = [messages.SimilarRequest(item_ids=[item_id]) for item_id in rng.choice(short, 40)]
    long = [messages.SimilarRequest(item_ids=served.items[row : row + 2]) for row in rng.integers(0, 500, 10)]
    missing = [messages.SimilarRequest(item_ids=["nobody"])] * 5
    requests = [one.SerializeToString() for one in (*plain, *long, *missing)]
    order = rng.permutation(len(requests))

    answers = await asyncio.gather(*(calls.raw("Similar", requests[place]) for place in order))

    # Those that were not plain, and no others.
    assert served.one_by_one.asked_count == len(long) + len(missing)
    for place, answer in zip(order, answers, strict=True):
        assert answer == await served.alone(requests[place])
    assert counted(metrics, "OK") == len(requests)
    searches = metrics.registry.get_sample_value("annserve_search_seconds_count", {"path": "hnsw"})
    assert searches == len(plain) + len(long)


async def test_errors_among_them_are_their_own(calls: Calls, served: Served, metrics: Metrics) -> None:
    good = messages.SimilarRequest(item_ids=served.items[:1])
    strict = messages.SimilarRequest(item_ids=["nobody"], options=parts.RecommendOptions(strict=True))

    outcomes = await asyncio.gather(
        *(calls("Similar", one) for one in (good, strict, messages.SimilarRequest(), good)), return_exceptions=True
    )

    codes = [outcome.code() if isinstance(outcome, grpc.aio.AioRpcError) else None for outcome in outcomes]
    assert codes == [None, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, None]
    # An error is counted when its call has ended, which its caller may know first.
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while [counted(metrics, code) for code in ("OK", "NOT_FOUND", "INVALID_ARGUMENT")] != [2, 1, 1]:
            await asyncio.sleep(0.01)


async def test_calls_that_are_cancelled_take_none_of_the_others_along(calls: Calls, served: Served) -> None:
    data = [messages.SimilarRequest(item_ids=[item_id]).SerializeToString() for item_id in served.items[:50]]
    tasks = [asyncio.create_task(calls.raw("Similar", one)) for one in data]
    await asyncio.sleep(0.001)
    for task in tasks[::2]:
        task.cancel()

    async with asyncio.timeout(TIMEOUT_SECONDS):
        await asyncio.gather(*tasks, return_exceptions=True)
    for one, task in zip(data[1::2], tasks[1::2], strict=True):
        assert task.result() == await served.alone(one)


async def test_those_that_are_not_plain_do_not_wait_for_a_turn_each(snapshot: Snapshot) -> None:
    turn, turns = 0, []

    class Noting(CountingRecommender):
        async def recommend(self, query: Query, deadline: Deadline = NO_DEADLINE) -> Answer:
            turns.append(turn)
            return await super().recommend(query, deadline)

    def count() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    # One that is plain is a whole turn's work.
    dear = SnapshotRecommender(load_snapshot(snapshot.path, cost=CostModel(graph_us=900.0, exact_us=1e6)))
    together = SimilarTogether(dear)
    assert together.at_most(10) == 1
    edge = Server(
        ServerSettings(address="127.0.0.1:0", transport="native"),
        Noting(SnapshotRecommender(snapshot), Workbench(ThreadPoolExecutor(1))),
        similar=together,
    )
    address = await edge.start()
    data = messages.SimilarRequest(item_ids=[snapshot.items.id(0)], options=OTHERS["ef_search"]).SerializeToString()
    loop = asyncio.get_running_loop()
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE_NAME}/Similar")
        await asyncio.to_thread(call, data)
        turns.clear()
        loop.call_soon(count)
        answering = [call.future(data) for _ in range(40)]
        time.sleep(0.3)  # So that all are there when the loop looks.
        await asyncio.gather(*(asyncio.to_thread(one.result, TIMEOUT_SECONDS) for one in answering))
    await edge.stop()

    assert len(turns) == 40
    assert turns[-1] - turns[0] < 20


async def test_a_fault_among_them_is_met_by_the_ordinary_way(
    calls: Calls, served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_arguments: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(served.together, "search", fails)
    data = messages.SimilarRequest(item_ids=served.items[:1]).SerializeToString()

    assert await calls.raw("Similar", data) == await served.alone(data)
    assert "answered one by one" in caplog.text


@pytest.fixture
def cache() -> Iterator[SharedCache]:
    opened = SharedCache(None)
    yield opened
    opened.close()


def requests_about(item_ids: Sequence[str]) -> list[bytes]:
    return [messages.SimilarRequest(item_ids=[item_id]).SerializeToString() for item_id in item_ids]


async def test_what_was_made_together_is_kept_as_if_each_had_been_asked_alone(
    served: Served, cache: SharedCache
) -> None:
    similar, together, alone = (
        PlainSimilar(served.together),
        Answers(served.one_by_one, cache),
        Answers(served.one_by_one, SharedCache(None)),
    )
    data = requests_about([item_id for item_id in served.items if len(item_id.encode()) < 128][:20])
    made = together.together(SIMILAR, similar, data)
    assert served.one_by_one.asked_count == 0

    for one, answer in zip(data, made, strict=True):
        assert answer == await alone.answer(SIMILAR, one, NO_DEADLINE)
        assert together.kept(SIMILAR, one) is not None
    assert (cache.counts.misses, cache.counts.worker_hits) == (len(data), len(data))
    kept = messages.SimilarResponse.FromString(together.kept(SIMILAR, data[0]) or b"")
    assert kept.serving_info.cache.source == parts.CACHE_SOURCE_WORKER
    assert kept.recommendations == messages.SimilarResponse.FromString(made[0] or b"").recommendations


async def test_equal_requests_that_come_together_are_made_once(served: Served, cache: SharedCache) -> None:
    asked: list[int] = []

    class Counting(PlainSimilar):
        def made(self, questions: Sequence[PlainQuestion]) -> list[bytes | None]:
            asked.append(len(questions))
            return super().made(questions)

    answers = Answers(served.one_by_one, cache)
    first, second = requests_about(served.items[:2])

    made = answers.together(SIMILAR, Counting(served.together), [first, second, first, first])

    assert asked == [2]
    assert None not in made
    found = [messages.SimilarResponse.FromString(one or b"") for one in made]
    assert found[0].recommendations == found[2].recommendations == found[3].recommendations
    assert [one.serving_info.cache.source for one in found] == [
        parts.CACHE_SOURCE_NONE,
        parts.CACHE_SOURCE_NONE,
        parts.CACHE_SOURCE_WORKER,
        parts.CACHE_SOURCE_WORKER,
    ]
    assert (cache.counts.misses, cache.counts.worker_hits) == (2, 2)


async def test_what_is_being_made_or_cannot_be_made_together_is_left_to_the_ordinary_way(
    served: Served, cache: SharedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    similar, answers = PlainSimilar(served.together), Answers(served.one_by_one, cache)
    first, second, unknown = requests_about([*served.items[:2], "nobody"])
    at_once = served.one_by_one.recommend

    async def slowly(query: Query, deadline: Deadline = NO_DEADLINE) -> Answer:
        await asyncio.sleep(0.01)
        return await at_once(query, deadline)

    monkeypatch.setattr(served.one_by_one, "recommend", slowly)
    making = asyncio.create_task(answers.answer(SIMILAR, first, NO_DEADLINE))
    await asyncio.sleep(0)

    given_up: list[bytes] = []
    monkeypatch.setattr(cache, "give_up", lambda turn: given_up.append(turn.key))
    made = answers.together(SIMILAR, similar, [first, second, unknown])
    assert [answer is None for answer in made] == [True, False, True]
    assert any(unknown in key for key in given_up)
    await making
    assert await answers.answer(SIMILAR, unknown, NO_DEADLINE)

    monkeypatch.setattr(served.together, "_is_open", lambda: False)
    assert answers.together(SIMILAR, similar, requests_about(served.items[2:4])) == [None, None]


async def test_an_answer_that_expired_is_made_anew(served: Served, cache: SharedCache) -> None:
    similar, answers = PlainSimilar(served.together), Answers(served.one_by_one, cache, ttl_seconds=0.001)
    data = requests_about(served.items[:3])
    answers.together(SIMILAR, similar, data)
    await asyncio.sleep(0.01)

    assert [answers.kept(SIMILAR, one) for one in data] == [None] * 3
    assert None not in answers.together(SIMILAR, similar, data)
    assert cache.counts.misses == 6


async def test_a_fault_leaves_no_turn_behind(
    served: Served, cache: SharedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object) -> None:
        raise RuntimeError("a fault")

    given_up: list[bytes] = []
    answers, data = Answers(served.one_by_one, cache), requests_about(served.items[:3])
    similar = PlainSimilar(served.together)
    monkeypatch.setattr(cache, "give_up", lambda turn: given_up.append(turn.key))
    with monkeypatch.context() as patch:
        patch.setattr(served.together, "search", fails)
        with pytest.raises(RuntimeError, match="a fault"):
            answers.together(SIMILAR, similar, data)
    assert len(given_up) == 3

    given_up.clear()
    begin, begun = cache.begin, 0

    def fails_at_the_third(key: bytes) -> Turn | Found | None:
        nonlocal begun
        begun += 1
        if begun == 3:
            raise OSError("no locks available")
        return begin(key)

    monkeypatch.setattr(cache, "begin", fails_at_the_third)
    with pytest.raises(OSError, match="no locks"):
        answers.together(SIMILAR, similar, data)
    assert len(given_up) == 2


def test_a_fault_in_looking_for_a_kept_answer_costs_no_call(caplog: pytest.LogCaptureFixture) -> None:
    def fails(_data: bytes) -> None:
        raise RuntimeError("a fault")

    kept = CallHandling("snapshot", 1_000).kept(SERVICE_NAME, "Similar", fails)

    assert kept(b"", Waiter(None)) is None
    assert "a fault" in caplog.text


async def test_kept_answers_too_are_made_together_by_a_server(
    served: Served, cache: SharedCache, metrics: Metrics, transport: TransportName
) -> None:
    settings = ServerSettings(address="127.0.0.1:0", transport=transport)
    edge = Server(settings, served.one_by_one, cache, metrics, similar=served.together)
    short = [item_id for item_id in served.items if len(item_id.encode()) < 128]
    data = requests_about([*short[:40], *short[:10]])
    async with grpc.aio.insecure_channel(await edge.start()) as channel:
        calls = Calls(channel)
        answers = await asyncio.gather(*(calls.raw("Similar", one) for one in data))
        again = [await calls.raw("Similar", one) for one in data[:5]]
    await edge.stop()

    assert served.one_by_one.asked_count == 0
    assert (cache.counts.misses, cache.counts.worker_hits) == (40, 15)
    for one, answer in zip(data, [*answers, *again], strict=False):
        alone = messages.SimilarResponse.FromString(await served.alone(one))
        assert messages.SimilarResponse.FromString(answer).recommendations == alone.recommendations
    metrics.publish()
    assert counted(metrics, "OK") == len(data) + 5
    assert metrics.registry.get_sample_value("annserve_search_seconds_count", {"path": "hnsw"}) == 40


class Waiter:
    """A call whose caller waits for so long still."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def time_remaining(self) -> float | None:
        return self._seconds

    def invocation_metadata(self) -> None:
        return None

    async def abort(self, *_arguments: object, **_more: object) -> Never:
        raise grpc.aio.AbortError


def test_a_call_whose_time_is_up_is_left_and_the_others_are_answered(served: Served, metrics: Metrics) -> None:
    similar = PlainSimilar(served.together)
    handling = CallHandling("snapshot", 1_000, metrics)
    together = handling.together(SERVICE_NAME, "Similar", similar.at_most, similar.answers)
    requests = [messages.SimilarRequest(item_ids=[item_id]).SerializeToString() for item_id in served.items[:4]]

    answers = together.answer(requests, [Waiter(None), Waiter(0.0), Waiter(0.5), Waiter(0.0)], 0.0)

    first, _, third, _ = similar.answers(requests)
    assert answers == [first, None, third, None]
    assert counted(metrics, "OK") == 2


def test_what_is_late_or_one_too_many_is_left_to_be_refused(served: Served, metrics: Metrics) -> None:
    similar = PlainSimilar(served.together)
    handling = CallHandling("snapshot", 1_000, metrics, calls_max=3)
    together = handling.together(SERVICE_NAME, "Similar", similar.at_most, similar.answers)
    data = messages.SimilarRequest(item_ids=served.items[:1]).SerializeToString()

    assert together.answer([data], [Waiter(None)], WAIT_SECONDS_MAX + 0.001) == [None]
    assert together.answer([data] * 4, [Waiter(None)] * 4, 0.0) == [None] * 4
    assert None not in together.answer([data] * 3, [Waiter(None)] * 3, WAIT_SECONDS_MAX)
    assert counted(metrics, "OK") == 3
