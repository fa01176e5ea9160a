"""One question in, one answer out, from one snapshot and what is already known of the catalogue."""

from __future__ import annotations

import math

from annserve.domain.arrays import Rows
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.erasure import ErasedUsers
from annserve.domain.errors import SnapshotNotHereError
from annserve.domain.query import Answer, Explanation, Mode, Query, SearchPath, Source
from annserve.engine.blend import blended, candidate_depth
from annserve.engine.eligibility import Eligibility, eligibility_of
from annserve.engine.fresh_state import FreshState
from annserve.engine.knowledge import NOTHING, Knowledge
from annserve.engine.known_users import KnownUsers
from annserve.engine.live_items import LiveItems
from annserve.engine.query_vectors import QueryVectorizer, QueryVectors
from annserve.engine.stopwatch import Stopwatch
from annserve.search.index import SearchResult
from annserve.snapshot.snapshot import Snapshot

_ID_US = 1.0
"""What an id of a request costs: looked up, made unique, scored if it is a candidate."""


class SnapshotRecommender:
    """Answers from one loaded snapshot and what came and went since. Threads may share it; it waits for nothing."""

    def __init__(self, snapshot: Snapshot, fresh: FreshState | None = None, erased: ErasedUsers | None = None) -> None:
        """Answer from ``snapshot``, and ``fresh`` and ``erased``, which are told of changes by whoever follows them."""
        self._snapshot = snapshot
        self._fresh = fresh or FreshState(snapshot)
        self._users = KnownUsers(snapshot, erased)
        self._vectorizer = QueryVectorizer(snapshot, self._users)

    def recommend(
        self,
        query: Query,
        deadline: Deadline = NO_DEADLINE,
        knowledge: Knowledge = NOTHING,
        *,
        fallback_us_max: float = math.inf,
    ) -> Answer:
        """Return the answer to ``query``; see `domain.ports.Recommender.recommend` for what it raises.

        LongScanError besides, when an exact search was not expected and would take longer than ``fallback_us_max``.
        """
        self.check_pin(query)
        options = query.options
        stopwatch = Stopwatch()
        items = self._fresh.items
        vectors = self._vectorizer.vectors_of(query, items, knowledge)
        eligibility = eligibility_of(query, vectors, self._snapshot, items, knowledge)
        stopwatch.lap("query_vectors")
        deadline.check("search")
        user_impact = _user_impact(query, vectors)
        found, source = self._search(query, items, vectors, eligibility, user_impact, deadline, fallback_us_max)
        stopwatch.lap("search")
        item_ids = items.ids(found.rows)
        stopwatch.lap("order")
        return Answer(
            snapshot_id=self._snapshot.id,
            item_ids=item_ids,
            scores=found.scores.tolist(),
            source=source,
            search_path=found.path,
            selectivity=eligibility.count / len(items) if len(items) else 0.0,
            missing_ids=vectors.missing_ids,
            user_impact=user_impact if query.mode is Mode.RELATED else None,
            shortfall=eligibility.shortfall(options.k, len(item_ids)),
            explanation=_explained(items, found.rows, vectors, stopwatch) if options.explain else None,
        )

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot every answer comes from."""
        return self._snapshot

    @property
    def fresh(self) -> FreshState:
        """The snapshot's items as they are now."""
        return self._fresh

    @property
    def users(self) -> KnownUsers:
        """The snapshot's users as they are now."""
        return self._users

    def check_pin(self, query: Query) -> None:
        """Raise SnapshotNotHereError when ``query`` wants another snapshot."""
        wanted_id = query.options.snapshot_id
        if wanted_id is not None and wanted_id != self._snapshot.id:
            raise SnapshotNotHereError(wanted_id, self._snapshot.id)

    def candidates(
        self,
        query: Query,
        depth: int,
        deadline: Deadline = NO_DEADLINE,
        knowledge: Knowledge = NOTHING,
        *,
        fallback_us_max: float = math.inf,
    ) -> tuple[SearchResult, ...]:
        """Return the best ``depth`` rows of each space that answers ``query``, fewer where no more are allowed.

        Whatever passes a later test among them is the best that passes it. Raises what `recommend` raises.
        """
        items = self._fresh.items
        vectors = self._vectorizer.vectors_of(query, items, knowledge)
        eligibility = eligibility_of(query, vectors, self._snapshot, items, knowledge)
        user_impact = _user_impact(query, vectors)
        searched = []
        if vectors.likeness is not None and user_impact < 1.0:
            searched.append((items.likeness, vectors.likeness))
        if vectors.affinity is not None and user_impact > 0.0:
            searched.append((items.affinity, vectors.affinity))
        if not searched:
            return (_popular(items, depth, eligibility),)
        return tuple(
            index.search(
                vector,
                depth,
                restriction=eligibility.restriction,
                excluded=eligibility.excluded,
                ef_search=query.options.ef_search,
                exact=query.options.exact,
                fallback_us_max=fallback_us_max,
                deadline=deadline,
            )
            for index, vector in searched
        )

    def estimated_us(self, query: Query, knowledge: Knowledge = NOTHING, depth: int | None = None) -> float:
        """Return an estimate of what ``query`` costs, in microseconds, on the high side; see `SpaceIndex.estimated_us`.

        Args:
            query: The question.
            knowledge: What `recommend` will be given.
            depth: For `candidates`; None for `recommend`.
        """
        options, snapshot, items = query.options, self._snapshot, self._fresh.items
        excluded_count = len(query.item_ids) + len(options.exclude_item_ids) + len(query.recent_items)
        excluded_count += knowledge.seen_rows.size
        cost = _ID_US * (excluded_count + len(options.candidate_item_ids or ()))
        if query.recent_items or knowledge.taste_rows.size:
            cost += self._vectorizer.fold_in_us(len(query.recent_items) or knowledge.taste_rows.size)
        if options.candidate_item_ids is not None:
            return cost  # A list that fits in a request is scanned while its ids are looked up.
        if query.user_id and options.exclude_seen and snapshot.histories is not None:
            row = self._users.row(query.user_id)
            if row is not None:
                excluded_count += int(snapshot.histories.indptr[row + 1] - snapshot.histories.indptr[row])
        k = depth or (options.k if query.mode is not Mode.RELATED else candidate_depth(options.k))
        searched = []
        if query.mode is not Mode.PERSONALIZE:
            searched.append(items.likeness)
        if query.mode is not Mode.SIMILAR:
            searched.append(items.affinity)
        for index in searched:
            cost += index.estimated_us(
                k,
                restriction=knowledge.allowed,
                excluded_count=excluded_count,
                ef_search=options.ef_search,
                exact=options.exact,
            )
        return cost

    def _search(
        self,
        query: Query,
        items: LiveItems,
        vectors: QueryVectors,
        eligibility: Eligibility,
        user_impact: float,
        deadline: Deadline,
        fallback_us_max: float,
    ) -> tuple[SearchResult, Source]:
        options = query.options
        likeness, affinity = vectors.likeness, vectors.affinity
        if likeness is not None and (affinity is None or user_impact == 0.0):
            index, vector, source = items.likeness, likeness, Source.ITEM_VECTOR
        elif affinity is not None and (likeness is None or user_impact == 1.0):
            index, vector, source = items.affinity, affinity, vectors.affinity_source
        elif likeness is not None and affinity is not None:
            found = blended(items, likeness, affinity, user_impact, options, eligibility, deadline, fallback_us_max)
            return found, Source.BLEND
        else:
            return _popular(items, options.k, eligibility), Source.POPULAR
        found = index.search(
            vector,
            options.k,
            restriction=eligibility.restriction,
            excluded=eligibility.excluded,
            ef_search=options.ef_search,
            exact=options.exact,
            fallback_us_max=fallback_us_max,
            deadline=deadline,
        )
        return found, source


def _popular(items: LiveItems, k: int, eligibility: Eligibility) -> SearchResult:
    """Return the most popular eligible items; their score is the popularity prior."""
    rows = items.most_popular(k, eligibility.restriction, eligibility.excluded)
    return SearchResult(
        rows=rows, scores=items.popularity(rows), path=SearchPath.EXACT, eligible_count=eligibility.count
    )


def _explained(items: LiveItems, rows: Rows, vectors: QueryVectors, stopwatch: Stopwatch) -> Explanation:
    likeness: list[float] = []
    affinity: list[float] = []
    popularity: list[float] = []
    if vectors.likeness is not None:
        likeness = items.likeness.score_rows(vectors.likeness, rows).tolist()
    if vectors.affinity is not None:
        affinity = items.affinity.score_rows(vectors.affinity, rows).tolist()
        popularity = (vectors.affinity[-1] * items.popularity(rows)).tolist()
    return Explanation(
        likeness_scores=likeness,
        affinity_scores=affinity,
        popularity_contributions=popularity,
        stage_us=stopwatch.laps,
    )


def _user_impact(query: Query, vectors: QueryVectors) -> float:
    """Return the weight that taste can have: all or nothing where one half has no vector."""
    if vectors.affinity is None:
        return 0.0
    if vectors.likeness is None:
        return 1.0
    return query.user_impact
