"""Recommendations from a snapshot alone, without a catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from annserve.domain.arrays import Rows
from annserve.domain.catalog import Metadata, Schema
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.ports import Basis
from annserve.domain.query import Answer, Query
from annserve.engine.knowledge import NOTHING, Knowledge
from annserve.engine.placing.candidate_reader import CandidateReader
from annserve.engine.query_vectors import QueryVectors
from annserve.engine.ranking import NO_EXCLUSIONS, Exclusions, Ranking, answer_of
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench


class PlainRecommender:
    """Implements `domain.ports.Recommender` for a server that was started without a catalogue."""

    schema: Schema | None = None
    candidates: CandidateReader | None = None

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
        return answer_of(await self.rank(query, deadline), query)

    async def rank(
        self, query: Query, deadline: Deadline = NO_DEADLINE, exclusions: Exclusions = NO_EXCLUSIONS
    ) -> Ranking:
        """Return the rows of the answer; see `engine.ranking.Ranker.rank`. There are no histories to leave out of."""
        knowledge = Knowledge(excluded_rows=exclusions.rows) if exclusions.rows.size else NOTHING
        return await self._workbench.run(
            self._recommender.estimated_us(query, knowledge),
            lambda fallback_us: self._recommender.rank(query, deadline, knowledge, fallback_us_max=fallback_us),
            deadline,
        )

    async def vectors(self, query: Query, deadline: Deadline = NO_DEADLINE) -> QueryVectors:  # noqa: ARG002 - it is quick
        """Return the vectors of ``query``; see `engine.ranking.Ranker.vectors`."""
        return self._recommender.vectors_of(query)

    async def recent_rows(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> Rows:  # noqa: ARG002 - it is quick
        """Return what the snapshot knows of a user; see `engine.ranking.Ranker.recent_rows`."""
        return self._recommender.recent_rows(user_id)

    async def seen_rows(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> Rows:  # noqa: ARG002 - it is quick
        """Return what the snapshot knows of a user; see `engine.ranking.Ranker.seen_rows`."""
        return self._recommender.seen_rows(user_id)

    async def described(
        self,
        answer: Answer,
        query: Query,  # noqa: ARG002 - it has no read mask: without a catalogue none is let through
        checked: Mapping[str, Metadata],  # noqa: ARG002
        deadline: Deadline,  # noqa: ARG002
    ) -> Answer:
        """Return ``answer``: there are no fields to add."""
        return answer
