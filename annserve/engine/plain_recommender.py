"""Recommendations from a snapshot alone, without a catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from annserve.domain.catalog import Schema
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.ports import Basis
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

    def basis(self, query: Query) -> Basis | None:
        """Return what an answer rests on; see `domain.ports.Recommender.basis`."""
        return Basis(
            versions=(*self._recommender.fresh.items.versions, *self._recommender.users.versions(query.user_id))
        )

    def unchanged(self, item_ids: Sequence[str], as_of: float) -> bool:  # noqa: ARG002 - there is none to change
        """Return whether metadata is unchanged; see `domain.ports.Recommender.unchanged`."""
        return True

    async def recommend(self, query: Query, deadline: Deadline = NO_DEADLINE) -> Answer:
        """Return the answer to ``query``; see `domain.ports.Recommender.recommend` for what it raises."""
        return await self._workbench.run(
            self._recommender.estimated_us(query),
            lambda fallback_us: self._recommender.recommend(query, deadline, fallback_us_max=fallback_us),
            deadline,
        )
