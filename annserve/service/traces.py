"""Traces of calls, by OpenTelemetry: a span of each call, within the caller's trace, and one of each of its stages.

Where they go and how many are made, the standard's own environment variables say: ``OTEL_EXPORTER_OTLP_ENDPOINT``,
``OTEL_TRACES_SAMPLER``, ``OTEL_RESOURCE_ATTRIBUTES`` and so on.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

import grpc
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from annserve.service.context import Context

_CARRIED: Final = ("traceparent", "tracestate")
_FAULTS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes that are errors of a server, by OpenTelemetry's conventions for gRPC; the others are the caller's."""


class Traces:
    """Traces calls. It has a thread: make it after the last fork."""

    def __init__(self, version: str, instance_id: str, exporter: SpanExporter | None = None) -> None:
        """Begin.

        Args:
            version: Of the program.
            instance_id: What the process is called among those of the service.
            exporter: Takes the spans; OTLP over HTTP without one.
        """
        resource = {SERVICE_VERSION: version, SERVICE_INSTANCE_ID: instance_id}
        if "OTEL_SERVICE_NAME" not in os.environ:
            resource[SERVICE_NAME] = "annserve"
        self._provider = TracerProvider(resource=Resource.create(resource), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("annserve", version)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, service: str, method: str, context: Context) -> CallTrace | None:
        """Return what takes the stages of a call that begins; None for one that is not sampled."""
        carrier = {name: value for name, value in context.invocation_metadata() or () if name in _CARRIED}
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        span = self._tracer.start_span(
            f"{service}/{method}", self._propagator.extract(carrier), SpanKind.SERVER, attributes
        )
        return CallTrace(self._tracer, span) if span.is_recording() else None

    def close(self) -> None:
        """Send what is left, for a few seconds at most, and end."""
        self._provider.shutdown()


class CallTrace:
    """The trace of one call; implements `domain.tracing.Trace`."""

    def __init__(self, tracer: Any, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span)

    def stage(self, name: str, seconds: float) -> None:
        """Note that a stage has just ended, which took so long."""
        now = time.time_ns()
        self._tracer.start_span(name, self._context, start_time=now - round(seconds * 1e9)).end(now)

    def note(self, name: str, value: str | float) -> None:
        """Note what is true of the whole call."""
        self._span.set_attribute(f"annserve.{name}", value)

    def end(self, code: str) -> None:
        """End the call, which was answered with the gRPC status code called ``code``."""
        self._span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[code].value[0])
        if code in _FAULTS:
            self._span.set_status(Status(StatusCode.ERROR, code))
        self._span.end()
