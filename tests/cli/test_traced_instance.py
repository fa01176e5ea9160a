"""Calls of an instance as a collector sees them that speaks OTLP over HTTP."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from checked_traffic import catalogue, item_id, two_snapshots
from instances import instance, until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus

from annserve.v1 import recommendation_service_pb2 as messages
from annserve.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SEEN_SECONDS = 20.0


class Collector:
    """What was sent, spans by name."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.services.add(attributes["service.name"])
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.take(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield collector
        finally:
            server.shutdown()
            serving.join()


def test_a_call_is_a_span_of_the_callers_trace_and_its_stages_are_spans_of_it(tmp_path: Path) -> None:
    root = tmp_path / "snapshots"
    two_snapshots(root, 1_000)
    metadata = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"),)
    with collecting() as collector:
        environment = {
            "ANNSERVE_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        }
        with (
            instance(root, tmp_path, *catalogue(tmp_path, 1_000), workers=2, **environment) as running,
            grpc.insecure_channel(running.address) as channel,
        ):
            stub = RecommendationServiceStub(channel)
            asked = messages.SimilarRequest(item_ids=[item_id(1)])
            stub.Similar(asked, metadata=metadata)
            stub.Similar(asked, metadata=metadata)
            stub.Similar(messages.SimilarRequest(item_ids=[item_id(2)]))
            with pytest.raises(grpc.RpcError):
                stub.Similar(messages.SimilarRequest(), metadata=metadata)
            until(lambda: len(collector.named("annserve.v1.RecommendationService/Similar")) == 3, SEEN_SECONDS)
        calls = collector.named("annserve.v1.RecommendationService/Similar")
        assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}
        assert {span.parent_span_id.hex() for span in calls} == {PARENT_ID}
        assert {span.kind for span in calls} == {Span.SPAN_KIND_SERVER}
        made, known, refused = sorted(calls, key=lambda span: span.start_time_unix_nano)
        stages = [span for span in collector.spans if span not in calls]
        assert {"catalog", "search"} <= {span.name for span in stages}
        assert {span.parent_span_id for span in stages} == {made.span_id}
        for stage in stages:
            assert made.start_time_unix_nano <= stage.start_time_unix_nano <= stage.end_time_unix_nano
            assert stage.end_time_unix_nano <= made.end_time_unix_nano
        assert text(made, "annserve.cache") == "none"
        assert text(known, "annserve.cache") in ("worker", "instance")
        # A caller's mistake is no fault of the server.
        assert refused.status.code == SpanStatus.STATUS_CODE_UNSET
        assert number(refused, "rpc.grpc.status_code") == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert collector.services == {"annserve"}


def text(span: Span, name: str) -> str:
    return next(one.value.string_value for one in span.attributes if one.key == name)


def number(span: Span, name: str) -> int:
    return next(one.value.int_value for one in span.attributes if one.key == name)
