"""What one room expects of another, as protocols, so that tests pass in twins."""

from __future__ import annotations

from typing import Protocol

from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.query import Answer, Query


class Recommender(Protocol):
    """Answers questions from one snapshot; `engine.recommender` is the implementation."""

    @property
    def snapshot_id(self) -> str:
        """The snapshot every answer comes from."""
        ...

    def recommend(self, query: Query, deadline: Deadline = NO_DEADLINE) -> Answer:
        """Return the answer to ``query``.

        Raises:
            InvalidArgumentError: the query contradicts itself or the snapshot.
            UnknownItemError, UnknownUserError: a strict query names an id without a vector.
            SnapshotNotHereError: the query pins another snapshot.
            FoldInUnavailableError: recent items were given and the snapshot cannot fold them in.
            DeadlineExceededError: the deadline passed before the answer was there.
        """
        ...

    def estimated_us(self, query: Query) -> float:
        """Return an estimate of what ``query`` costs, in microseconds; a long one leaves the event loop."""
        ...
