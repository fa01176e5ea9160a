"""Servers to compare `annserve serve` with, each less than it: an empty handler, and the edge without an engine."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import nullcontext

import grpc

from annserve.domain.catalog import Schema
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.query import Answer, Query, SearchPath, Source
from annserve.service.server import serve
from annserve.service.servicer import SERVICE_NAME
from annserve.service.settings import ServerSettings
from annserve.service.transport import OPTIONS
from annserve.v1 import recommendation_service_pb2 as messages


class CannedRecommender:
    """Answers every question at once, with the same ten items."""

    snapshot_id = "canned"
    schema: Schema | None = None

    def __init__(self) -> None:
        self._answer = Answer(
            snapshot_id=self.snapshot_id,
            item_ids=[f"item-{number:06}" for number in range(10)],
            scores=[1.0 - number / 10 for number in range(10)],
            source=Source.ITEM_VECTOR,
            search_path=SearchPath.HNSW,
            selectivity=1.0,
        )

    def basis(self, _query: Query) -> None:
        """Return that no answer may be kept."""

    def unchanged(self, _item_ids: Sequence[str], _as_of: float) -> bool:
        """Return that nothing changes."""
        return True

    async def recommend(self, _query: Query, _deadline: Deadline = NO_DEADLINE) -> Answer:
        """Return the one answer there is."""
        return self._answer


async def serve_empty(address: str) -> None:
    """Serve a Similar that returns an empty message: what grpc.aio itself costs."""
    response = messages.SimilarResponse()

    async def similar(_request: messages.SimilarRequest, _context: object) -> messages.SimilarResponse:
        return response

    handler = grpc.unary_unary_rpc_method_handler(
        similar,
        request_deserializer=messages.SimilarRequest.FromString,
        response_serializer=messages.SimilarResponse.SerializeToString,
    )
    server = grpc.aio.server(options=OPTIONS)
    server.add_registered_method_handlers(SERVICE_NAME, {"Similar": handler})
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["empty", "edge"])
    parser.add_argument("address")
    arguments = parser.parse_args()
    if arguments.kind == "empty":
        asyncio.run(serve_empty(arguments.address))
    else:
        serve(ServerSettings(address=arguments.address), nullcontext(CannedRecommender()))


if __name__ == "__main__":
    main()
