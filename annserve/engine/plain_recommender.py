"""Recommendations from a snapshot alone, without a catalogue."""

from __future__ import annotations

from annserve.domain.catalog import Schema
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.query import Answer, Query
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench


class PlainRecommender:
    """Implements `domain.ports.Recommender` for a server that was started without a catalogue."""

    schema: Schema | None = None

    def __init__(self, recommender: SnapshotRecommender, workbench: Workbench) -> None:
        self._recommender = recommender
        self._workbench = workbench

    @property
    def snapshot_id(self) -> str:
        """The snapshot every answer comes from."""
        return self._recommender.snapshot.id

    async def recommend(self, query: Query, deadline: Deadline = NO_DEADLINE) -> Answer:
        """Return the answer to ``query``; see `domain.ports.Recommender.recommend` for what it raises."""
        return await self._workbench.run(
            self._recommender.estimated_us(query),
            lambda fallback_us: self._recommender.recommend(query, deadline, fallback_us_max=fallback_us),
            deadline,
        )
