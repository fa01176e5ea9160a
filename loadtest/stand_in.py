"""Servers to compare `annserve serve` with, each less than it: an empty handler, a bare graph, an edge by itself."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from bare_graph import bare_graph

from annserve.domain.catalog import Schema
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.query import Answer, Options, Query, SearchPath, Source
from annserve.service.context import Call, Context, ServedMethod
from annserve.service.security import Security
from annserve.service.server import Served, serve
from annserve.service.servicer import SERVICE_NAME
from annserve.service.settings import ServerSettings
from annserve.service.transport import TransportName, transport_of
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore
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


def empty() -> Call:
    """Return a Similar that reads its request and returns an empty message: what the transport itself costs."""
    response = messages.SimilarResponse()

    async def similar(data: bytes, context: Context, waited_seconds: float = 0.0) -> bytes:  # noqa: ARG001 - as it is called
        messages.SimilarRequest.FromString(data)
        return response.SerializeToString()

    return similar


def bare(snapshots: Path) -> Call:
    """Return a Similar that does nothing but search: what a transport and hnswlib cost in one process."""
    snapshot = load_current(SnapshotStore(snapshots)).snapshot
    found = bare_graph(snapshot)
    if found is None:
        raise SystemExit(f"the snapshot in {snapshots} has no graph")
    index, queries = found
    ids = snapshot.items.ids(np.arange(len(snapshot.items)))
    row_of = {item_id: row for row, item_id in enumerate(ids)}

    async def similar(data: bytes, context: Context, waited_seconds: float = 0.0) -> bytes:  # noqa: ARG001 - as it is called
        response, seed = messages.SimilarResponse(), messages.SimilarRequest.FromString(data).item_ids[0]
        if seed in row_of:
            rows, distances = index.knn_query(queries[row_of[seed]], k=Options().k + 1)
            add = response.recommendations.results.add
            for row, distance in zip(rows[0].tolist()[1:], distances[0].tolist()[1:], strict=True):
                add(item_id=ids[row], score=1.0 - distance)
        return response.SerializeToString()

    return similar


async def serve_alone(similar: Call, address: str, transport: TransportName) -> None:
    """Serve one method, and nothing around it."""
    server = transport_of(transport, address, Security(), shares_port=False)
    server.serve(SERVICE_NAME, {"Similar": ServedMethod(similar)})
    server.listen(address)
    await server.start()
    await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["empty", "bare", "edge"])
    parser.add_argument("address")
    parser.add_argument("--snapshots", type=Path, help="what a bare one searches")
    parser.add_argument("--transport", choices=["grpcio", "native"], default="grpcio")
    arguments = parser.parse_args()
    if arguments.kind == "empty":
        asyncio.run(serve_alone(empty(), arguments.address, arguments.transport))
    elif arguments.kind == "bare":
        if arguments.snapshots is None:
            parser.error("a bare one needs --snapshots")
        asyncio.run(serve_alone(bare(arguments.snapshots), arguments.address, arguments.transport))
    else:
        settings = ServerSettings(address=arguments.address, transport=arguments.transport)
        serve(settings, nullcontext(Served(recommender=CannedRecommender())))


if __name__ == "__main__":
    main()
