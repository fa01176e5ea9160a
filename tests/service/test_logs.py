from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from edge_twin import Calls, TwinRecommender

from annserve.domain.errors import OverloadedError, UnknownItemError
from annserve.service.call_log import CallLog
from annserve.service.logs import EVENTS_PER_SECOND, QUEUED_MAX, configure_logs
from annserve.service.server import Server
from annserve.service.settings import ServerSettings
from annserve.v1 import recommendation_service_pb2 as messages

OPERATIONS = " ".join((Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8").split())
SECRET = "hunter2-planted"  # noqa: S105 - to be looked for

BLOCKED = """
import logging, os, time
from annserve.service.logs import configure_logs

log = configure_logs("blocked", "INFO", "json", in_thread=True)
began = time.monotonic()
for number in range(5_000):
    logging.getLogger("a").info("x" * 200, extra={"event": number})
print(time.monotonic() - began < 5.0, log.dropped_count > 0, flush=True)
logging.shutdown()
os._exit(0)
"""


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level, stream = list(root.handlers), root.level, io.StringIO()
    configure_logs("worker 3", "INFO", "json", in_thread=False, stream=stream)
    yield stream
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


async def called(twin: TwinRecommender, log_share: float, requests: list[messages.SimilarRequest]) -> None:
    edge = Server(ServerSettings(address="127.0.0.1:0", log_share=log_share), twin)
    address = await edge.start()
    metadata = (("x-request-id", "id-7"), ("authorization", f"Bearer {SECRET}"), ("x-api-key", SECRET))
    async with grpc.aio.insecure_channel(address) as channel:
        for request in requests:
            with suppress(grpc.aio.AioRpcError):
                await Calls(channel)("Similar", request, metadata=metadata)
    await edge.stop()


async def test_a_failed_call_is_a_line_with_its_code_reason_and_request_id(
    written: io.StringIO, twin: TwinRecommender
) -> None:
    twin.error = UnknownItemError("item-0", "s")
    await called(twin, 0.0, [messages.SimilarRequest(item_ids=["item-0"])])

    (line,) = lines(written)
    assert line["event"] == "call_refused_unknown_item"
    assert (line["code"], line["reason"], line["method"]) == ("NOT_FOUND", "UNKNOWN_ITEM", "Similar")
    assert (line["request_id"], line["snapshot_id"], line["process"]) == ("id-7", "snapshot-twin", "worker 3")
    assert line["ts"].endswith("Z")
    assert 0.0 < line["dur_ms"] < 10_000
    assert line["level"] == "INFO"
    assert "exception" not in line


async def test_a_fault_of_ours_is_an_error_with_its_traceback(written: io.StringIO, twin: TwinRecommender) -> None:
    twin.error = RuntimeError("out of luck")
    await called(twin, 0.0, [messages.SimilarRequest(item_ids=["item-0"])])

    (line,) = lines(written)
    assert (line["level"], line["event"], line["code"]) == ("ERROR", "call_failed", "INTERNAL")
    assert "out of luck" in line["exception"]


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (1.0, 3)])
async def test_of_answered_calls_a_share_is_logged(
    written: io.StringIO, twin: TwinRecommender, share: float, count: int
) -> None:
    await called(twin, share, [messages.SimilarRequest(item_ids=["item-0"])] * 3)

    assert [line["event"] for line in lines(written)] == ["call_answered"] * count


async def test_what_lines_hold_is_what_the_operations_page_says(written: io.StringIO, twin: TwinRecommender) -> None:
    logging.getLogger("annserve").info("hello")
    twin.error = UnknownItemError("item-0", "s")
    await called(twin, 0.0, [messages.SimilarRequest(item_ids=["item-0"])])
    of_every_line, of_a_call = re.findall(r"one JSON object a line[^:]*: (.*?) and for a call (.*?)\.", OPERATIONS)[0]

    plain, call = lines(written)
    assert set(plain) == set(re.findall("`([a-z_]+)`", of_every_line))
    assert set(call) - set(plain) == set(re.findall("`([a-z_]+)`", of_a_call))


async def test_neither_secrets_nor_what_was_asked_are_in_the_log(written: io.StringIO, twin: TwinRecommender) -> None:
    address = f"mongodb://reader:{SECRET}@db.example:27017/?tls=true"
    requests = [messages.SimilarRequest(item_ids=["item-4", "asked-for-this"])]
    await called(twin, 1.0, [*requests, messages.SimilarRequest()])
    twin.error = RuntimeError(f"{address} said no; Authorization: Bearer {SECRET}")
    await called(twin, 1.0, requests)
    logging.getLogger("driver").warning("cannot reach %s, x-api-key: %s", address, SECRET)

    text = written.getvalue()
    assert len(lines(written)) == 4
    assert "db.example" in text
    assert SECRET not in text
    assert "asked-for-this" not in text


def test_an_event_is_written_so_often_a_second_and_then_says_how_often_it_was_not(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    log = logging.getLogger("noisy")
    for number in range(50):
        log.warning("again %d", number)
    log.warning("something else")
    now += 1.5
    log.warning("again %d", 50)

    messages_ = [line["message"] for line in lines(written)]
    assert messages_ == [f"again {number}" for number in range(EVENTS_PER_SECOND)] + ["something else", "again 50"]
    assert lines(written)[-1]["suppressed"] == 50 - EVENTS_PER_SECOND


def test_calls_turned_away_are_written_of_ten_times_a_second_with_how_many_were_not(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = Mock(wraps=logging.getLogRecordFactory())
    monkeypatch.setattr(logging, "_logRecordFactory", made)
    log = CallLog("snapshot-7")
    for _ in range(2):
        for _ in range(100):
            log.overloaded("Similar", 0.001, OverloadedError(OverloadedError.THREADS))
        now += 1.5

    first, second = lines(written)
    assert (first["event"], first["reason"], first["method"]) == ("call_overloaded", "OVERLOADED", "Similar")
    assert ("suppressed" in first, second["suppressed"]) == (False, 99)
    # Making a record is what costs.
    assert made.call_count == 2


def test_nobody_waits_for_a_standard_error_that_takes_nothing() -> None:
    reading, writing = os.pipe()  # Nobody reads: 64 KiB fit.
    try:
        command = [sys.executable, "-c", BLOCKED]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writing, timeout=60, check=True)
    finally:
        os.close(reading)
        os.close(writing)

    assert done.stdout == b"True True\n"
    assert QUEUED_MAX < 5_000
