"""Servers to compare `annserve serve` with, each less than it: an empty handler, and the edge without an engine."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import nullcontext

from annserve.domain.catalog import Schema
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.query import Answer, Query, SearchPath, Source
from annserve.service.context import Context, ServedMethod
from annserve.service.security import Security
from annserve.service.server import Served, serve
from annserve.service.servicer import SERVICE_NAME
from annserve.service.settings import ServerSettings
from annserve.service.transport import TransportName, transport_of
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


async def serve_empty(address: str, transport: TransportName) -> None:
    """Serve a Similar that reads its request and returns an empty message: what the transport itself costs."""
    response = messages.SimilarResponse()

    async def similar(data: bytes, context: Context, waited_seconds: float = 0.0) -> bytes:  # noqa: ARG001 - as it is called
        messages.SimilarRequest.FromString(data)
        return response.SerializeToString()

    server = transport_of(transport, address, Security(), shares_port=False)
    server.serve(SERVICE_NAME, {"Similar": ServedMethod(similar)})
    server.listen(address)
    await server.start()
    await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["empty", "edge"])
    parser.add_argument("address")
    parser.add_argument("--transport", choices=["grpcio", "native"], default="grpcio")
    arguments = parser.parse_args()
    if arguments.kind == "empty":
        asyncio.run(serve_empty(arguments.address, arguments.transport))
    else:
        settings = ServerSettings(address=arguments.address, transport=arguments.transport)
        serve(settings, nullcontext(Served(recommender=CannedRecommender())))


if __name__ == "__main__":
    main()
