#!/usr/bin/env python3
"""What one would write in an afternoon: grpc.aio, hnswlib and pymongo. To compare annserve with, not to serve anybody.

It answers Similar and Personalize of annserve's own contract, with metadata, under one range or equality. Nothing is
tuned, cached, checked or kept complete: the graphs are hnswlib's usual ones, a filter asks for a hundred and keeps what
MongoDB lets pass, and a user without a vector has the mean of what she looked at.

    .venv/bin/python loadtest/baseline/server.py 127.0.0.1:50061 snapshots mongodb://127.0.0.1:27017/ DATABASE
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import hnswlib
import numpy as np
from pymongo import AsyncMongoClient

from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import filter_pb2, recommendation_pb2
from annserve.v1 import recommendation_service_pb2 as messages
from annserve.v1.recommendation_service_pb2_grpc import (
    RecommendationServiceServicer,
    add_RecommendationServiceServicer_to_server,
)

M, EF_CONSTRUCTION, EF = 16, 200, 64
OVER_FETCH = 100
DEFAULT_PAGE_SIZE = 10


def graph_of(vectors: Any, space: str) -> Any:
    """Return a graph over ``vectors``, with the parameters that hnswlib's examples have."""
    graph = hnswlib.Index(space=space, dim=vectors.shape[1])
    graph.init_index(max_elements=len(vectors), M=M, ef_construction=EF_CONSTRUCTION)
    graph.add_items(vectors)
    graph.set_ef(max(EF, OVER_FETCH))
    graph.set_num_threads(1)
    return graph


def condition_of(message: filter_pb2.Filter) -> dict[str, Any]:
    """Return MongoDB's condition for a filter of one test."""
    test = message.condition
    if test.WhichOneof("test") == "equals":
        return {test.field: getattr(test.equals, test.equals.WhichOneof("kind") or "")}
    bounds = {"$gte": test.range.minimum, "$gt": test.range.above, "$lte": test.range.maximum, "$lt": test.range.below}
    return {test.field: {name: bound.number_value for name, bound in bounds.items() if bound.WhichOneof("kind")}}


class Recommendations(RecommendationServiceServicer):
    """Everything in memory, and the metadata in MongoDB."""

    def __init__(self, snapshots: Path, items: Any) -> None:
        snapshot = load_current(SnapshotStore(snapshots)).snapshot
        self._ids = snapshot.items.ids(np.arange(len(snapshot.items)))
        self._rows = {item_id: row for row, item_id in enumerate(self._ids)}
        self._vectors = np.array(snapshot.item_vectors)
        self._users = {snapshot.users.id(row): snapshot.user_vectors[row] for row in range(len(snapshot.users))}
        self._popular = snapshot.item_vectors[snapshot.popular_rows[:100]].mean(axis=0)
        self._alike, self._liked = graph_of(self._vectors, "cosine"), graph_of(self._vectors, "ip")
        self._items = items

    async def Similar(self, request: messages.SimilarRequest, _context: object) -> messages.SimilarResponse:  # noqa: N802
        """Return the nearest by cosine."""
        seeds = [self._rows[item_id] for item_id in request.item_ids if item_id in self._rows]
        if not seeds:
            return messages.SimilarResponse()
        query = self._vectors[seeds].mean(axis=0)
        found = await self._found(self._alike, query, set(request.item_ids), request.options)
        return messages.SimilarResponse(recommendations=found)

    async def Personalize(self, request: messages.PersonalizeRequest, _context: object) -> messages.PersonalizeResponse:  # noqa: N802
        """Return the largest inner products."""
        recent = [self._rows[one.item_id] for one in request.recent_items if one.item_id in self._rows]
        query = self._users.get(request.user_id)
        if query is None:
            query = self._vectors[recent].mean(axis=0) if recent else self._popular
        found = await self._found(self._liked, query, set(), request.options)
        return messages.PersonalizeResponse(recommendations=found)

    async def _found(
        self, graph: Any, query: Any, left_out: set[str], options: recommendation_pb2.RecommendOptions
    ) -> recommendation_pb2.Recommendations:
        k = options.page_size or DEFAULT_PAGE_SIZE
        narrowed = options.HasField("filter")
        rows, distances = graph.knn_query(query, min(OVER_FETCH if narrowed else k + len(left_out), len(self._ids)))
        scored = {self._ids[row]: 1 - distance for row, distance in zip(rows[0], distances[0], strict=True)}
        documents: dict[str, dict[str, Any]] = {}
        if narrowed or options.read_mask.paths:
            condition = condition_of(options.filter) if narrowed else {}
            cursor = self._items.find(
                {"_id": {"$in": list(scored)}, **condition}, list(options.read_mask.paths) or ["_id"]
            )
            documents = {one["_id"]: one async for one in cursor}
        answer = recommendation_pb2.Recommendations()
        for item_id, score in scored.items():
            if item_id not in left_out and (not narrowed or item_id in documents) and len(answer.results) < k:
                result = answer.results.add(item_id=item_id, score=score)
                for name in options.read_mask.paths:
                    value = documents.get(item_id, {}).get(name)
                    kind = {bool: "bool_value", str: "string_value", float: "number_value"}.get(type(value))
                    if kind:
                        result.metadata[name].values.add(**{kind: value})
        return answer


async def serve(address: str, snapshots: Path, uri: str, database: str) -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    items = AsyncMongoClient[dict[str, Any]](uri)[database]["items"]
    # The methods it lacks are UNIMPLEMENTED.
    servicer = Recommendations(snapshots, items)  # type: ignore[abstract]
    add_RecommendationServiceServicer_to_server(servicer, server)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    _, where, folder, mongodb, name = sys.argv
    asyncio.run(serve(where, Path(folder), mongodb, name))
