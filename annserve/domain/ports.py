"""What one room expects of another, as protocols, so that tests pass in twins; the catalogue's is `domain.catalog`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from annserve.domain.catalog import Schema
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.query import Answer, Query


class Basis(NamedTuple):
    """What an answer rests on beside its question and the snapshot, at one moment."""

    versions: tuple[int, ...] = ()
    """Of everything that has versions: while they are the same, so is the answer."""
    age_seconds: float | None = None
    """How old what is known of the catalogue is; None where it is not needed."""
    as_of: float = math.inf
    """Monotonic seconds: all changes of metadata up to then are known."""


class Recommender(Protocol):
    """Answers questions from one snapshot and, where there is one, the catalogue; the engine implements it."""

    @property
    def snapshot_id(self) -> str:
        """The snapshot every answer comes from."""
        ...

    @property
    def schema(self) -> Schema | None:
        """The declared fields that filters may test; None without a catalogue."""
        ...

    def basis(self, query: Query) -> Basis | None:
        """Return what an answer to ``query`` rests on now; None where no kept answer can do."""
        ...

    def unchanged(self, item_ids: Sequence[str], as_of: float) -> bool:
        """Return whether the metadata of items is still what it was to those who knew all changes up to ``as_of``."""
        ...

    async def recommend(self, query: Query, deadline: Deadline = NO_DEADLINE) -> Answer:
        """Return the answer to ``query``. What would hold up the event loop is done in a thread.

        Raises:
            InvalidArgumentError: the query contradicts itself or the snapshot.
            UnknownItemError, UnknownUserError: a strict query names an id without a vector.
            SnapshotNotHereError: the query pins another snapshot.
            FoldInUnavailableError: recent items were given and the snapshot cannot fold them in.
            CatalogUnavailableError: a filter was given, and nothing fresh enough is known of the catalogue.
            FieldNotIndexedError: the filter tests a field that the database has no index for.
            DeadlineExceededError: the deadline passed before the answer was there.
        """
        ...
