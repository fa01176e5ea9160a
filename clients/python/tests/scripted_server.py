"""A server that answers each call with the next line of a script, so that a client can be watched."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc

from annserve_client._gen import event_service_pb2 as event_messages
from annserve_client._gen import filter_pb2 as filter_messages
from annserve_client._gen import recommendation_pb2 as messages
from annserve_client._gen import recommendation_service_pb2 as service_messages

SERVICE = "annserve.v1.RecommendationService"
EVENT_SERVICE = "annserve.v1.EventService"
TIMEOUT_SECONDS = 10.0
ATTRIBUTION = "abc"


class Script:
    """What to do with each call: a response to give, or the status to fail with. The last line holds for the rest."""

    def __init__(self, *lines: Any) -> None:
        self.lines: Sequence[Any] = lines
        self.requests: list[Any] = []
        self.time_remaining: list[float] = []
        self.metadata: tuple[tuple[str, str | bytes], ...] = ()
        self.gate: threading.Event | None = None

    def play(self, request: Any, context: grpc.ServicerContext) -> Any:
        line = self.lines[min(len(self.requests), len(self.lines) - 1)]
        self.requests.append(request)
        self.time_remaining.append(context.time_remaining())
        if self.gate is not None:
            self.gate.wait(TIMEOUT_SECONDS)
        if isinstance(line, grpc.StatusCode):
            context.set_trailing_metadata(self.metadata)
            context.abort(line, "as scripted")
        return line


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """Serve ``script`` for every method; gives the address."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in ("Similar", "Personalize", "Related", "Recommend", "BatchRecommend"):
        handlers[method] = grpc.unary_unary_rpc_method_handler(
            script.play,
            request_deserializer=getattr(service_messages, f"{method}Request").FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )
    write: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        script.play,
        request_deserializer=event_messages.WriteRequest.FromString,
        response_serializer=lambda response: response.SerializeToString(),
    )
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(SERVICE, handlers),
            grpc.method_handlers_generic_handler(EVENT_SERVICE, {"Write": write}),
        ]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    if script.gate is not None:
        script.gate.set()
    server.stop(None).wait(TIMEOUT_SECONDS)


def similar_response() -> service_messages.SimilarResponse:
    """Return an answer with every field set."""
    return service_messages.SimilarResponse(
        recommendations=messages.Recommendations(
            results=[
                messages.Recommendation(
                    item_id="상품-1",
                    score=2.5,
                    source=messages.SOURCE_FOLD_IN,
                    explanation=messages.ScoreExplanation(affinity=2.5, popularity_contribution=0.0),
                ),
                messages.Recommendation(
                    item_id="item-2", score=1.5, source=messages.SOURCE_FOLD_IN, metadata=_metadata()
                ),
            ],
            snapshot_id="s1",
            missing_ids=["nothing"],
            shortfall=messages.Shortfall(
                requested_count=10,
                returned_count=2,
                eligible_count=2,
                limiting_rule=messages.LIMITING_RULE_CANDIDATE_ITEMS,
            ),
            search_path=messages.SEARCH_PATH_EXACT,
            selectivity=0.25,
            user_impact=0.0,
        ),
        serving_info=_serving_info(),
    )


def _metadata() -> dict[str, filter_messages.FieldValues]:
    price, tags = filter_messages.FieldValues(), filter_messages.FieldValues()
    price.values.add(number_value=2.5)
    tags.values.add(string_value="상품")
    tags.values.add(string_value="")
    released = filter_messages.FieldValues()
    released.values.add().time_value.FromMilliseconds(1_500)
    stocked = filter_messages.FieldValues()
    stocked.values.add(bool_value=False)
    return {"price": price, "tags": tags, "released": released, "stocked": stocked}


def _serving_info() -> messages.ServingInfo:
    info = messages.ServingInfo(attribution_token=ATTRIBUTION)
    info.catalog_age.FromMilliseconds(2_500)
    info.degradations.append(messages.DEGRADATION_CATALOG_STALE)
    info.catalog_use.bitmap_hit_count = 2
    info.catalog_use.database_call_count = 1
    info.cache.source = messages.CACHE_SOURCE_INSTANCE
    info.cache.age.FromMilliseconds(1_500)
    info.stage_durations.add(stage="search").duration.FromMicroseconds(1_500)
    return info
