"""Calls to a real server: what is answered, and with which status."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import grpc
import pytest
from edge_twin import ITEM_IDS, TIMEOUT_SECONDS, Calls, TwinRecommender
from google.rpc import code_pb2, error_details_pb2

from annserve.domain import errors
from annserve.domain.deadline import Deadline
from annserve.domain.query import Answer, Mode, Query
from annserve.service import servicer
from annserve.service.limits import REQUEST_BYTES_MAX
from annserve.service.servicer import SERVICE_NAME
from annserve.v1 import recommendation_pb2 as values
from annserve.v1 import recommendation_service_pb2 as messages

SIMILAR = messages.SimilarRequest(item_ids=["item-4"])


async def test_answer_holds_items_scores_snapshot_path_and_token(call: Calls) -> None:
    response = await call(
        "Similar", messages.SimilarRequest(item_ids=["item-0"], options=values.RecommendOptions(page_size=3))
    )

    answer = response.recommendations
    assert [result.item_id for result in answer.results] == list(ITEM_IDS[1:4])
    assert [result.score for result in answer.results] == pytest.approx([599 / 600, 598 / 600, 597 / 600])
    assert {result.source for result in answer.results} == {values.SOURCE_ITEM_VECTOR}
    assert not any(result.HasField("explanation") for result in answer.results)
    assert (answer.snapshot_id, answer.search_path) == ("snapshot-twin", values.SEARCH_PATH_EXACT)
    assert answer.selectivity == pytest.approx(599 / 600)
    assert not answer.HasField("shortfall")
    assert not answer.HasField("user_impact")
    token = response.serving_info.attribution_token
    assert token.isascii()
    assert token.isprintable()
    assert 1 <= len(token) <= 64


async def test_missing_ids_shortfall_and_blend_weight_are_told(call: Calls) -> None:
    response = await call(
        "Related",
        messages.RelatedRequest(
            item_ids=["없는 상품", "item-0"],
            user_impact=0.0,
            options=values.RecommendOptions(candidate_items=values.CandidateItems(item_ids=["item-2", "nothing"])),
        ),
    )

    answer = response.recommendations
    assert answer.missing_ids == ["없는 상품"]
    assert answer.HasField("user_impact")
    assert answer.user_impact == 0.0
    assert answer.shortfall == values.Shortfall(
        requested_count=10,
        returned_count=1,
        eligible_count=1,
        limiting_rule=values.LIMITING_RULE_CANDIDATE_ITEMS,
    )


async def test_explain_tells_what_scores_are_made_of_and_how_long_stages_took(call: Calls) -> None:
    response = await call(
        "Personalize",
        messages.PersonalizeRequest(user_id="u", options=values.RecommendOptions(page_size=1, explain=True)),
    )

    (result,) = response.recommendations.results
    explanation = result.explanation
    assert (explanation.likeness, explanation.affinity, explanation.popularity_contribution) == (1.0, 0.5, 0.25)
    stages = [(entry.stage, entry.duration.ToNanoseconds()) for entry in response.serving_info.stage_durations]
    assert stages == [("query_vectors", 1_500), ("search", 20_250)]


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (
            errors.InvalidArgumentError.of("item_ids", "must not be empty"),
            grpc.StatusCode.INVALID_ARGUMENT,
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field="item_ids", description="must not be empty")
                ]
            ),
        ),
        (
            errors.UnknownItemError("상품", "s1"),
            grpc.StatusCode.NOT_FOUND,
            error_details_pb2.ResourceInfo(resource_type="annserve/item", resource_name="상품"),
        ),
        (
            errors.UnknownUserError("u1", "s1"),
            grpc.StatusCode.NOT_FOUND,
            error_details_pb2.ResourceInfo(resource_type="annserve/user", resource_name="u1"),
        ),
        (
            errors.SnapshotNotHereError("s2", "s1"),
            grpc.StatusCode.NOT_FOUND,
            error_details_pb2.ResourceInfo(resource_type="annserve/snapshot", resource_name="s2"),
        ),
        (
            errors.FoldInUnavailableError("s1"),
            grpc.StatusCode.FAILED_PRECONDITION,
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(
                        type="FOLD_IN_UNAVAILABLE",
                        subject="snapshot/s1",
                        description="a snapshot built with fold-in constants",
                    )
                ]
            ),
        ),
        (
            errors.NoSnapshotError("no snapshot has been loaded"),
            grpc.StatusCode.UNAVAILABLE,
            error_details_pb2.RetryInfo(retry_delay={"seconds": 1}),
        ),
        (errors.DeadlineExceededError("search"), grpc.StatusCode.DEADLINE_EXCEEDED, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_error_of_the_engine_becomes_its_status_with_details(
    call: Calls, twin: TwinRecommender, error: errors.AnnserveError, code: grpc.StatusCode, detail: Any
) -> None:
    twin.error = error

    failure = await call.error("Similar", SIMILAR)

    assert (failure.code, failure.message) == (code, str(error))
    assert (failure.info.reason, failure.info.domain) == (error.reason, "annserve")
    assert dict(failure.info.metadata) == error.metadata
    if detail is not None:
        assert failure.detail(type(detail)) == detail


async def test_fault_is_internal_says_only_its_request_id_and_is_logged(
    call: Calls, twin: TwinRecommender, caplog: pytest.LogCaptureFixture
) -> None:
    twin.error = ZeroDivisionError("secret of the engine")

    with caplog.at_level(logging.ERROR):
        failure = await call.error("Similar", SIMILAR, metadata=(("x-request-id", "from-the-caller:1"),))

    assert failure.code is grpc.StatusCode.INTERNAL
    assert failure.message == "internal error; the server's log has more under request id from-the-caller:1"
    assert failure.info.reason == "INTERNAL"
    assert dict(failure.info.metadata) == {"request_id": "from-the-caller:1"}
    assert "secret" not in str(failure.status)
    assert "from-the-caller:1" in caplog.text
    assert "secret of the engine" in caplog.text


@pytest.mark.parametrize(
    "field",
    ["item_ids", "item_ids[3]", "recent_items[0].weight", "options.candidate_items.item_ids[1]", "user_impact"],
)
async def test_field_of_the_request_that_the_engine_refuses_is_the_callers_mistake(
    call: Calls, twin: TwinRecommender, field: str
) -> None:
    twin.error = errors.InvalidArgumentError.of(field, "cannot be used")

    failure = await call.error("Related", messages.RelatedRequest(item_ids=["item-0"]))

    assert (failure.code, failure.message) == (grpc.StatusCode.INVALID_ARGUMENT, f"{field}: cannot be used")


@pytest.mark.parametrize("field", ["restriction", "rows", "query", "k", "recent_items", "options.k", "item_ids.x", ""])
@pytest.mark.parametrize("cost_us", [10.0, 5_000.0], ids=["on the loop", "in a thread"])
async def test_argument_of_ours_that_the_engine_refuses_is_a_fault_and_is_logged(
    call: Calls, twin: TwinRecommender, caplog: pytest.LogCaptureFixture, field: str, cost_us: float
) -> None:
    twin.cost_us = cost_us
    # One field of the caller's does not make a fault of ours hers.
    twin.error = errors.InvalidArgumentError(
        [
            errors.FieldViolation(field="item_ids", description="cannot be used"),
            errors.FieldViolation(field=field, description="is our secret"),
        ]
    )

    failure = await call.error("Similar", SIMILAR)
    batch = await call(
        "BatchRecommend", messages.BatchRecommendRequest(rows=[messages.BatchRecommendRow(similar=SIMILAR)])
    )

    assert (failure.code, failure.info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert batch.results[0].status.code == code_pb2.INTERNAL
    assert "secret" not in str(failure.status) + str(batch)
    assert caplog.text.count(f"{field}: is our secret") >= 2


async def test_callers_mistake_is_not_logged_as_an_error(call: Calls, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="annserve"):
        await call.error("Similar", messages.SimilarRequest())

    (record,) = [record for record in caplog.records if record.name.startswith("annserve")]
    assert (record.levelno, record.exc_info) == (logging.INFO, None)


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "line\\break"])
async def test_malformed_request_id_is_replaced(call: Calls, sent: str) -> None:
    failure = await call.error("Similar", messages.SimilarRequest(), metadata=(("x-request-id", sent),))

    request_id = failure.trailing["x-request-id"]
    assert request_id != sent
    assert len(request_id) == 16


async def test_every_wrong_field_is_reported_at_once(call: Calls) -> None:
    failure = await call.error(
        "Related",
        messages.RelatedRequest(
            item_ids=["fine", "", "x" * 129],
            user_id="a\nb",
            user_impact=1.5,
            options=values.RecommendOptions(page_size=501, popularity_weight=float("nan")),
        ),
    )

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    violations = {v.field: v.description for v in failure.detail(error_details_pb2.BadRequest).field_violations}
    assert violations == {
        "item_ids[1]": "must not be empty",
        "item_ids[2]": "must be at most 128 bytes, got 129",
        "user_id": "must not hold a control character (U+000A at position 1)",
        "user_impact": "must be at most 1, got 1.5",
        "options.page_size": "must be at most 500, got 501",
        "options.popularity_weight": "must be a finite number, got nan",
    }


async def test_bytes_that_do_not_decode_are_the_callers_mistake(call: Calls) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.raw("Similar", b"\xff\xff\xff")

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "request: must be an encoded annserve.v1.SimilarRequest"


async def test_unknown_fields_are_ignored(call: Calls) -> None:
    known = SIMILAR.SerializeToString()
    unknown = b"\xfa\x3f\x03abc"

    with_unknown = await call.raw("Similar", unknown + known)
    without = await call.raw("Similar", known)

    assert with_unknown == without


async def test_unknown_method_is_unimplemented(call: Calls) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.raw("Guess", b"")

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
async def test_request_over_the_size_limit_is_turned_away(
    call: Calls, twin: TwinRecommender, compression: grpc.Compression | None
) -> None:
    request = messages.SimilarRequest(item_ids=["x" * REQUEST_BYTES_MAX])

    failure = await call.error("Similar", request, compression=compression)

    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert twin.queries == []


@pytest.mark.parametrize(
    ("size", "code"),
    [(REQUEST_BYTES_MAX, grpc.StatusCode.OK), (REQUEST_BYTES_MAX + 1, grpc.StatusCode.RESOURCE_EXHAUSTED)],
)
async def test_request_may_be_as_long_as_the_limit_and_no_byte_longer(
    call: Calls, size: int, code: grpc.StatusCode
) -> None:
    # A field unknown to the contract fills up: 2 bytes of tag, 3 of length, its value.
    known = SIMILAR.SerializeToString()
    filling = size - len(known) - 5
    length = bytes([filling & 0x7F | 0x80, filling >> 7 & 0x7F | 0x80, filling >> 14])
    request = known + b"\xfa\x3f" + length + b"x" * filling
    assert len(request) == size

    similar: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = call.channel.unary_unary(f"/{SERVICE_NAME}/Similar")

    assert await similar(request, timeout=TIMEOUT_SECONDS).code() is code


async def test_request_at_every_limit_at_once_fits(call: Calls) -> None:
    ids = [f"{number:0128}" for number in range(1_000)]
    options = values.RecommendOptions(
        page_size=500, exclude_item_ids=ids, candidate_items=values.CandidateItems(item_ids=ids), explain=True
    )
    recent = [values.WeightedItem(item_id=item_id, weight=0.3) for item_id in ids[:200]]

    response = await call(
        "Related",
        messages.RelatedRequest(
            item_ids=ids[:100], user_id="u" * 128, recent_items=recent, user_impact=0.3, options=options
        ),
    )

    assert len(response.recommendations.missing_ids) == 100


async def test_callers_deadline_reaches_the_engine(call: Calls, twin: TwinRecommender) -> None:
    before = time.monotonic()

    await call("Similar", SIMILAR, timeout=0.9)

    assert before < twin.deadlines[0].at <= before + 0.95


async def test_servers_cap_ends_a_call_whose_deadline_is_later(call: Calls, twin: TwinRecommender) -> None:
    before = time.monotonic()

    await call("Similar", SIMILAR, timeout=100)
    await call("Similar", SIMILAR, timeout=None)

    assert all(before < deadline.at <= time.monotonic() + 1.0 for deadline in twin.deadlines)


async def test_long_work_leaves_the_loop_to_others(call: Calls, twin: TwinRecommender) -> None:
    twin.gate, twin.cost_us = threading.Event(), 5_000.0
    long_call = asyncio.create_task(call("Similar", SIMILAR))
    await asyncio.to_thread(twin.entered.wait, 5)

    gate, twin.gate, twin.cost_us = twin.gate, None, 10.0
    await call("Similar", SIMILAR)
    assert not long_call.done()
    gate.set()
    await long_call

    assert twin.threads[0].startswith("annserve-search")
    assert twin.threads[1] == threading.current_thread().name


async def test_call_whose_time_passes_while_a_thread_works_ends_without_waiting_for_it(
    call: Calls, twin: TwinRecommender
) -> None:
    twin.gate, twin.cost_us = threading.Event(), 5_000.0

    # The server's own cap is 1 s, so it answers, not the caller's library.
    failure = await call.error("Similar", SIMILAR, timeout=9)
    twin.gate.set()

    assert (failure.code, failure.info.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_deadline_error_tells_whether_a_thread_worked_or_was_only_waited_for(
    call: Calls, twin: TwinRecommender
) -> None:
    twin.gate, twin.cost_us = threading.Event(), 5_000.0
    busy = [asyncio.create_task(call.error("Similar", SIMILAR, timeout=9)) for _ in range(2)]
    while len(twin.queries) < 2:
        await asyncio.sleep(0)

    waiting = await call.error("Similar", SIMILAR, timeout=9)
    working = await asyncio.gather(*busy)
    twin.gate.set()

    assert [failure.info.metadata["stage"] for failure in working] == ["search", "search"]
    assert waiting.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert waiting.info.metadata["stage"] == "waiting for a thread"
    assert waiting.message == "the deadline passed during waiting for a thread"


async def test_work_still_waiting_when_its_caller_leaves_is_never_begun(call: Calls, twin: TwinRecommender) -> None:
    twin.gate, twin.cost_us = threading.Event(), 5_000.0
    busy = [asyncio.create_task(call("Similar", SIMILAR)) for _ in range(2)]
    while len(twin.queries) < 2:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(call("Similar", messages.SimilarRequest(item_ids=["item-6"])))
    await call("BatchRecommend", messages.BatchRecommendRequest(rows=[messages.BatchRecommendRow()]))

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await call("BatchRecommend", messages.BatchRecommendRequest(rows=[messages.BatchRecommendRow()]))
    twin.gate.set()
    await asyncio.gather(*busy)
    await call("Similar", SIMILAR)

    assert ("item-6",) not in [query.item_ids for query in twin.queries]


async def test_batch_answers_each_row_with_a_status_of_its_own(call: Calls, twin: TwinRecommender) -> None:
    rows = [
        messages.BatchRecommendRow(similar=SIMILAR),
        messages.BatchRecommendRow(similar=messages.SimilarRequest(item_ids=[""])),
        messages.BatchRecommendRow(),
        messages.BatchRecommendRow(
            similar=messages.SimilarRequest(item_ids=["nothing"], options=values.RecommendOptions(strict=True))
        ),
        messages.BatchRecommendRow(personalize=messages.PersonalizeRequest(user_id="u")),
        messages.BatchRecommendRow(related=messages.RelatedRequest(item_ids=["item-0"])),
    ]

    response = await call("BatchRecommend", messages.BatchRecommendRequest(rows=rows))

    assert [result.status.code for result in response.results] == [
        code_pb2.OK,
        code_pb2.INVALID_ARGUMENT,
        code_pb2.INVALID_ARGUMENT,
        code_pb2.NOT_FOUND,
        code_pb2.OK,
        code_pb2.OK,
    ]
    assert response.results[1].status.message == "item_ids[0]: must not be empty"
    assert response.results[2].status.message == "request: one of similar, personalize, related, recommend must be set"
    assert [query.mode for query in twin.queries if not query.options.strict] == [
        Mode.SIMILAR,
        Mode.PERSONALIZE,
        Mode.RELATED,
    ]
    single = await call("Similar", SIMILAR)
    assert response.results[0].recommendations == single.recommendations
    assert response.results[0].serving_info == single.serving_info


async def test_fault_in_a_row_is_internal_for_that_row_alone(call: Calls, twin: TwinRecommender) -> None:
    twin.error = ZeroDivisionError("secret")

    response = await call(
        "BatchRecommend",
        messages.BatchRecommendRequest(
            rows=[messages.BatchRecommendRow(similar=SIMILAR), messages.BatchRecommendRow()]
        ),
    )

    assert [result.status.code for result in response.results] == [code_pb2.INTERNAL, code_pb2.INVALID_ARGUMENT]
    assert "secret" not in str(response)


@pytest.mark.parametrize("deadline_max_ms", [10_000])
async def test_rows_overtaken_by_the_deadline_say_so_and_those_before_are_brought_home(
    call: Calls, twin: TwinRecommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The margin that is left, a tenth of the time at most, has to outlast a stall of the machine.
    monkeypatch.setattr(servicer, "BATCH_MARGIN_SECONDS", 0.45)
    twin.gate, twin.cost_us, twin.free_count = threading.Event(), 5_000.0, 1
    row = messages.BatchRecommendRow(similar=SIMILAR)

    # The caller's deadline is the earlier one; a server that used it up would be cut off with nothing to show.
    response = await call("BatchRecommend", messages.BatchRecommendRequest(rows=[row] * 3), timeout=4.5)
    twin.gate.set()

    assert [result.status.code for result in response.results] == [
        code_pb2.OK,
        code_pb2.DEADLINE_EXCEEDED,
        code_pb2.DEADLINE_EXCEEDED,
    ]
    assert len(twin.queries) == 2


async def test_batch_lets_other_calls_in_between_rows(
    call: Calls, twin: TwinRecommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = twin.answered

    def slow(query: Query, deadline: Deadline) -> Answer:
        time.sleep(0.003)  # 100 rows last long enough for the other call to arrive, on a busy machine too.
        return answer(query, deadline)

    monkeypatch.setattr(twin, "answered", slow)
    batch = messages.BatchRecommendRequest(rows=[messages.BatchRecommendRow(similar=SIMILAR)] * 100)
    long_call = asyncio.create_task(call("BatchRecommend", batch))
    while not twin.queries:
        await asyncio.sleep(0)

    await call("Personalize", messages.PersonalizeRequest(user_id="u"))
    await long_call

    assert twin.queries[-1].mode is not Mode.PERSONALIZE
