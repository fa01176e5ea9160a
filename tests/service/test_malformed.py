"""Ten thousand requests, most of them wrong: every one gets a status that says so, and none harms the server."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TypeAlias

import grpc
import pytest
from catalog_schema import exists
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutation import mutated
from serve_model import model

from annserve.domain.query import Query
from annserve.engine.recommender import SnapshotRecommender
from annserve.service.convert import personalize_query, related_query, similar_query
from annserve.service.servicer import SERVICE_NAME
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import load_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import recommendation_pb2 as values
from annserve.v1 import recommendation_service_pb2 as messages

Request: TypeAlias = messages.SimilarRequest | messages.PersonalizeRequest | messages.RelatedRequest
TIMEOUT_SECONDS = 20.0
EXAMPLES = 500
MUTATIONS = 9
METHODS = ("Similar", "Personalize", "Related", "BatchRecommend")
EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}

GOOD_IDS = ["item-0", "상품-1", "item-2", "상품-3", "user-1", "unknown", "x" * 128, "상" * 42, "'\"\\", "\u202e"]
BAD_IDS = ["", "x" * 129, "상" * 43, "a\x00", "a\nb", "\x7f"]
page_sizes = st.sampled_from([0, 1, 2, 10, 499, 500])
weights = st.sampled_from([0.0, 1e-30, 1.0, 3.5, 1_000_000.0])
popularity_weights = st.sampled_from([-10.0, -0.0, 0.0, 0.5, 10.0])
impacts = st.sampled_from([0.0, 0.25, 1.0])
wild_ints = st.sampled_from([-(2**31), -1, 501, 1_001, 2**31 - 1])
wild_floats = st.sampled_from([math.nan, math.inf, -math.inf, -1e-30, 1e30, 3.4e38])


@st.composite
def requests(draw: st.DrawFn, near: bool) -> Request:
    """Return a request within the contract; with ``near``, one where fields may be just, or far, outside it."""
    ids = st.sampled_from([*GOOD_IDS * 5, *BAD_IDS]) if near else st.sampled_from(GOOD_IDS)
    rarely = st.sampled_from([*[False] * 19, True])

    def number(inside: st.SearchStrategy[float], outside: st.SearchStrategy[float]) -> float:
        return draw(outside if near and draw(rarely) else inside)

    def some_ids(at_least: int, at_most: int) -> list[str]:
        if near and draw(rarely):
            return ["item-0"] * draw(st.sampled_from([0, at_most + 1, 20 * at_most]))
        return draw(st.lists(ids, min_size=at_least, max_size=4))

    options = values.RecommendOptions(
        page_size=int(number(page_sizes, wild_ints)),
        exclude_item_ids=some_ids(0, 1_000),
        strict=draw(st.booleans()),
        explain=draw(st.booleans()),
    )
    if draw(st.booleans()):
        options.candidate_items.item_ids.extend(some_ids(0, 1_000))
    if draw(st.booleans()):
        options.exclude_seen = draw(st.booleans())
    if draw(st.booleans()):
        options.popularity_weight = number(popularity_weights, wild_floats)
    if draw(st.booleans()):
        options.search_parameters.ef_search = int(number(page_sizes, wild_ints))
    options.search_parameters.exact = draw(st.booleans())
    if draw(rarely):
        options.consistency.snapshot_id = draw(ids)
    if near and draw(rarely):
        # This server has no catalogue; mutations make anything of it.
        options.filter.CopyFrom(exists("price"))
    kind = draw(st.sampled_from(METHODS[:3]))
    if kind == "Similar":
        return messages.SimilarRequest(item_ids=some_ids(1, 100), options=options)
    recent = [values.WeightedItem(item_id=item_id, weight=number(weights, wild_floats)) for item_id in some_ids(0, 200)]
    user_id = draw(ids) if draw(st.booleans()) or not recent else ""
    if kind == "Personalize":
        return messages.PersonalizeRequest(user_id=user_id, recent_items=recent, options=options)
    related = messages.RelatedRequest(item_ids=some_ids(1, 100), user_id=user_id, recent_items=recent, options=options)
    if draw(st.booleans()):
        related.user_impact = number(impacts, wild_floats)
    return related


def _bytes(value: str | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value


def assert_valid(request: Request, answer: values.Recommendations) -> None:
    """Check what holds of every answer, whatever the engine thinks best."""
    options = request.options
    page_size = options.page_size or 10
    ids = [result.item_id for result in answer.results]
    scores = [result.score for result in answer.results]
    assert answer.snapshot_id
    assert answer.search_path
    assert 0.0 <= answer.selectivity <= 1.0
    assert len(set(ids)) == len(ids) <= page_size
    assert all(map(math.isfinite, scores))
    assert all(better >= worse for better, worse in pairwise(scores))
    assert all(result.source for result in answer.results)
    assert all(result.HasField("explanation") <= options.explain for result in answer.results)
    assert not set(ids) & set(options.exclude_item_ids)
    if not isinstance(request, messages.PersonalizeRequest):
        assert not set(ids) & set(request.item_ids)
    if options.HasField("candidate_items"):
        assert set(ids) <= set(options.candidate_items.item_ids)
    if answer.HasField("shortfall"):
        shortfall = answer.shortfall
        assert (shortfall.requested_count, shortfall.returned_count) == (page_size, len(ids))
        assert shortfall.returned_count == shortfall.eligible_count < page_size
        assert shortfall.limiting_rule
    else:
        assert len(ids) == page_size


def assert_tells(status: status_pb2.Status) -> None:
    """Check that a refusal carries a reason and, where fields are wrong, which."""
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert info.domain == "annserve"
    assert info.reason
    if status.code == code_pb2.INVALID_ARGUMENT:
        assert status.details[1].Unpack(bad_request)
        assert 1 <= len(bad_request.field_violations) <= 10
    assert len(status.message.encode()) <= 256
    assert status.ByteSize() <= 4_096


class Oracle:
    """The same snapshot in this process: what nobody may be shown, and what exact search finds."""

    def __init__(self, path: Path) -> None:
        self._recommender = SnapshotRecommender(load_snapshot(path))
        parts = model()
        assert parts.histories is not None
        self._seen = {
            user_id: {parts.item_ids[row] for row in parts.histories.of(number)}
            for number, user_id in enumerate(parts.user_ids)
        }

    def assert_unseen(self, request: Request, answer: values.Recommendations) -> None:
        """Check that nothing comes back that the user had, unless she asked for it."""
        options = request.options
        if isinstance(request, messages.SimilarRequest) or (
            options.HasField("exclude_seen") and not options.exclude_seen
        ):
            return
        seen = self._seen.get(request.user_id, set()) | {recent.item_id for recent in request.recent_items}
        assert not seen & {result.item_id for result in answer.results}

    def assert_same(self, request: Request, answer: values.Recommendations) -> None:
        """Check that ``answer``, to a request for exact search, is the one found here."""
        expected = self._recommender.recommend(_query_of(request))
        assert [result.item_id for result in answer.results] == list(expected.item_ids)
        assert [result.score for result in answer.results] == pytest.approx(expected.scores)
        assert tuple(answer.missing_ids) == expected.missing_ids
        assert answer.snapshot_id == expected.snapshot_id


class Server:
    """A server in a process of its own, asked with bytes as they are."""

    def __init__(self, process: subprocess.Popen[str], channel: grpc.Channel, oracle: Oracle) -> None:
        self.process = process
        self.codes: Counter[str] = Counter()
        self.row_codes: Counter[int] = Counter()
        self.compared_count = 0
        self._oracle = oracle
        self._calls: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {
            method: channel.unary_unary(f"/{SERVICE_NAME}/{method}") for method in METHODS
        }

    def ask(self, method: str, payloads: Sequence[bytes]) -> list[grpc.StatusCode]:
        """Send all ``payloads`` at once and check each answer."""
        futures = [self._calls[method].future(payload, timeout=TIMEOUT_SECONDS) for payload in payloads]
        codes: list[grpc.StatusCode] = []
        for payload, future in zip(payloads, futures, strict=True):
            code = future.code()
            assert code in EXPECTED, (method, payload, code, future.details())
            if code is grpc.StatusCode.OK:
                self._check_answer(method, payload, future.result())
            else:
                trailing = dict(future.trailing_metadata())
                assert trailing["x-request-id"]
                assert_tells(status_pb2.Status.FromString(_bytes(trailing["grpc-status-details-bin"])))
            codes.append(code)
        self.codes.update(code.name for code in codes)
        return codes

    def _check_answer(self, method: str, payload: bytes, answer: bytes) -> None:
        request = getattr(messages, f"{method}Request").FromString(payload)
        response = getattr(messages, f"{method}Response").FromString(answer)
        if method != "BatchRecommend":
            assert response.serving_info.attribution_token
            self._check_recommendations(request, response.recommendations)
            return
        for row, result in zip(request.rows, response.results, strict=True):
            self.row_codes[result.status.code] += 1
            if result.WhichOneof("result") == "status":
                assert result.status.code in {expected.value[0] for expected in EXPECTED}
                assert_tells(result.status)
            else:
                self._check_recommendations(getattr(row, row.WhichOneof("request")), result.recommendations)

    def _check_recommendations(self, request: Request, answer: values.Recommendations) -> None:
        assert_valid(request, answer)
        self._oracle.assert_unseen(request, answer)
        if request.options.search_parameters.exact:
            self._oracle.assert_same(request, answer)
            self.compared_count += 1


@pytest.fixture(scope="module", params=["grpcio", "native"])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    info = build_snapshot(model(), SnapshotStore(tmp_path_factory.mktemp("snapshots")), threads=1)
    command = [sys.executable, str(Path(__file__).with_name("serve_model.py")), str(info.path), request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        with grpc.insecure_channel(process.stdout.readline().strip()) as channel:
            yield Server(process, channel, Oracle(info.path))
        assert process.poll() is None, "the server did not live"
        process.terminate()
        assert "Traceback" not in process.stderr.read()
        assert process.wait(TIMEOUT_SECONDS) == 0


def _method_of(request: Message) -> str:
    return request.DESCRIPTOR.name.removesuffix("Request")


def _query_of(request: Request) -> Query:
    match request:
        case messages.SimilarRequest():
            return similar_query(request, None)
        case messages.PersonalizeRequest():
            return personalize_query(request, None)
        case messages.RelatedRequest():
            return related_query(request, None)


def _as_row(request: Request) -> messages.BatchRecommendRow:
    match request:
        case messages.SimilarRequest():
            return messages.BatchRecommendRow(similar=request)
        case messages.PersonalizeRequest():
            return messages.BatchRecommendRow(personalize=request)
        case messages.RelatedRequest():
            return messages.BatchRecommendRow(related=request)


quick = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@settings(quick, max_examples=EXAMPLES // 5)
@given(request=requests(near=False))
def test_request_within_the_contract_is_never_called_invalid(server: Server, request: Request) -> None:
    (code,) = server.ask(_method_of(request), [request.SerializeToString()])

    assert code is not grpc.StatusCode.INVALID_ARGUMENT


def test_near_valid_and_mutated_requests_get_a_valid_answer_or_a_telling_status(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    @settings(quick, max_examples=EXAMPLES)
    @given(request=requests(near=True), random=st.randoms(use_true_random=True))
    def ask(request: Request, random: Random) -> None:
        payload = request.SerializeToString()
        batch = messages.BatchRecommendRequest(rows=[_as_row(request)] * random.randint(1, 3)).SerializeToString()

        server.ask(_method_of(request), [payload, *(mutated(payload, random) for _ in range(MUTATIONS - 3))])
        server.ask("BatchRecommend", [batch, mutated(batch, random)])
        # What is right for one method is mostly nonsense to another.
        server.ask(random.choice(METHODS), [payload])

    asked_before, compared_before = server.codes.total(), server.compared_count
    ask()

    asked_count, compared_count = server.codes.total() - asked_before, server.compared_count - compared_before
    # Without answers that could be compared, all the others would prove little.
    assert asked_count >= EXAMPLES * (MUTATIONS + 1)
    assert compared_count >= EXAMPLES // 4
    with capsys.disabled():
        sys.stdout.write(
            f"\n{asked_count:,} malformed requests: {dict(server.codes)}; rows {dict(server.row_codes)}; "
            f"{compared_count:,} compared with exact search\n"
        )


def test_server_still_answers(server: Server) -> None:
    (code,) = server.ask("Similar", [messages.SimilarRequest(item_ids=["item-0"]).SerializeToString()])

    assert code is grpc.StatusCode.OK
