"""From ids to vectors: what a question means in the two spaces of the snapshot that answers it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from annserve.domain.arrays import Rows, Vectors
from annserve.domain.errors import FoldInUnavailableError, UnknownItemError, UnknownUserError
from annserve.domain.query import Mode, Query, Source
from annserve.engine.knowledge import NO_ROWS, NOTHING, Knowledge
from annserve.engine.known_users import KnownUsers
from annserve.engine.live_items import LiveItems
from annserve.snapshot.snapshot import Snapshot
from annserve.training.fold_in import FoldIn


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryVectors:
    """What a question could be turned into. A half that has no vector is None."""

    seed_rows: Rows
    """Seed or context items that have a vector, without repeats, in the request's order."""
    likeness: Vectors | None
    """``(d,)``: the mean of the seeds' unit vectors."""
    affinity: Vectors | None
    """``(d + 1,)``: the user's vector and what the popularity prior counts."""
    affinity_source: Source
    """Where the user's vector came from, if there is one: `FOLD_IN` or `USER_VECTOR`."""
    user_row: int | None
    recent_rows: Rows
    missing_ids: tuple[str, ...]


class QueryVectorizer:
    """Turns questions into query vectors of one snapshot. Holds nothing that a question changes."""

    def __init__(self, snapshot: Snapshot, users: KnownUsers | None = None) -> None:
        self._snapshot = snapshot
        self._users = users or KnownUsers(snapshot)
        self._fold_in = FoldIn(snapshot.gram, snapshot.fold_in) if snapshot.fold_in is not None else None

    def vectors_of(self, query: Query, items: LiveItems, knowledge: Knowledge = NOTHING) -> QueryVectors:
        """Return the vectors of ``query``, among ``items``.

        Raises:
            UnknownItemError, UnknownUserError: the query is strict and names an id without a vector.
            FoldInUnavailableError: there are recent items, and the snapshot has no fold-in constants.
        """
        missing: list[str] = []
        seed_rows = _item_rows(items, query.item_ids, missing)
        if missing and query.options.strict:
            raise UnknownItemError(missing[0], self._snapshot.id)
        likeness = _seed_vector(items, seed_rows) if seed_rows.size else None
        if query.mode is Mode.SIMILAR:
            return QueryVectors(
                seed_rows=seed_rows,
                likeness=likeness,
                affinity=None,
                affinity_source=Source.USER_VECTOR,
                user_row=None,
                recent_rows=NO_ROWS,
                missing_ids=tuple(missing),
            )
        user_row = self._users.row(query.user_id) if query.user_id else None
        recent_rows, folded = self._folded(query, items, knowledge, missing)
        if query.user_id and user_row is None:
            missing.append(query.user_id)
        if query.options.strict and missing and folded is None and user_row is None:
            raise (
                UnknownUserError(query.user_id, self._snapshot.id)
                if query.user_id
                else UnknownItemError(missing[0], self._snapshot.id)
            )
        source, user_vector = Source.FOLD_IN, folded
        if folded is None:
            source = Source.USER_VECTOR
            user_vector = self._snapshot.user_vectors[user_row] if user_row is not None else None
        return QueryVectors(
            seed_rows=seed_rows,
            likeness=likeness,
            affinity=self._with_prior(user_vector, query) if user_vector is not None else None,
            affinity_source=source,
            user_row=user_row,
            recent_rows=recent_rows,
            missing_ids=tuple(missing),
        )

    def fold_in_us(self, item_count: int) -> float:
        """Return about how many microseconds folding in so many recent items takes."""
        return 0.0 if self._fold_in is None else self._fold_in.estimated_us(item_count)

    def _folded(
        self, query: Query, items: LiveItems, knowledge: Knowledge, missing: list[str]
    ) -> tuple[Rows, Vectors | None]:
        """Return the rows of the recent items, and the user vector they fold in to, None when none is known.

        Recent items of the request win over those of the user's history.
        """
        if not query.recent_items:
            latest_rows = items.present(knowledge.taste_rows)[-self._snapshot.recent_items_max :]
            if self._fold_in is None or not latest_rows.size:
                return NO_ROWS, None
            vectors = items.vectors(latest_rows)
            return NO_ROWS, self._fold_in.user_vector(vectors, np.ones(len(latest_rows)))
        if self._fold_in is None:
            raise FoldInUnavailableError(self._snapshot.id)
        rows: list[int] = []
        weights: list[float] = []
        for recent in query.recent_items:
            row = items.row(recent.item_id)
            if row is not None:
                rows.append(row)
                weights.append(recent.weight)
            elif recent.item_id not in missing:
                missing.append(recent.item_id)
        if not rows:
            return NO_ROWS, None
        all_rows = np.array(rows, dtype=np.int64)
        latest = slice(-self._snapshot.recent_items_max, None)
        vectors = items.vectors(all_rows[latest])
        return all_rows, self._fold_in.user_vector(vectors, np.array(weights[latest]))

    def _with_prior(self, user_vector: Vectors, query: Query) -> Vectors:
        weight = query.options.popularity_weight
        extended = np.empty(user_vector.size + 1, dtype=np.float32)
        extended[:-1] = user_vector
        extended[-1] = self._snapshot.popularity_weight if weight is None else weight
        return extended


def _item_rows(items: LiveItems, item_ids: Iterable[str], missing: list[str]) -> Rows:
    """Return the rows of the known ids, each once; unknown ids are added to ``missing``, each once."""
    rows: dict[int, None] = {}
    for item_id in item_ids:
        row = items.row(item_id)
        if row is not None:
            rows[row] = None
        elif item_id not in missing:
            missing.append(item_id)
    return np.fromiter(rows, dtype=np.int64, count=len(rows))


def seed_units(seeds: Vectors) -> Vectors:
    """Return vectors of items, ``(q, d)``, at length 1: each is what is searched for where it is the only seed."""
    units: Vectors = seeds / np.sqrt(np.vecdot(seeds, seeds))[:, np.newaxis]
    return units


def _seed_vector(items: LiveItems, rows: Rows) -> Vectors:
    units = seed_units(items.vectors(rows))
    mean: Vectors = units[0] if len(rows) == 1 else units.mean(axis=0)
    return mean
