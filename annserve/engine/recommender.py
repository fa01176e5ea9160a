"""One question in, one answer out: the way through the rooms."""

from __future__ import annotations

import numpy as np

from annserve.domain.arrays import Rows
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import SnapshotNotHereError
from annserve.domain.query import Answer, Explanation, Mode, Query, SearchPath, Source
from annserve.engine.blend import blended, candidate_depth
from annserve.engine.eligibility import Eligibility, eligibility_of
from annserve.engine.query_vectors import QueryVectorizer, QueryVectors
from annserve.engine.stopwatch import Stopwatch
from annserve.search.index import SearchResult
from annserve.snapshot.snapshot import Snapshot

_ID_US = 1.0
"""What an id of a request costs: looked up, made unique, scored if it is a candidate."""


class SnapshotRecommender:
    """Answers from one loaded snapshot; implements `domain.ports.Recommender`. Safe to share between threads."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._vectorizer = QueryVectorizer(snapshot)

    @property
    def snapshot_id(self) -> str:
        """The snapshot every answer comes from."""
        return self._snapshot.id

    def recommend(self, query: Query, deadline: Deadline = NO_DEADLINE) -> Answer:
        """Return the answer to ``query``; see `domain.ports.Recommender.recommend` for what it raises."""
        options = query.options
        if options.snapshot_id is not None and options.snapshot_id != self._snapshot.id:
            raise SnapshotNotHereError(options.snapshot_id, self._snapshot.id)
        stopwatch = Stopwatch()
        vectors = self._vectorizer.vectors_of(query)
        eligibility = eligibility_of(query, vectors, self._snapshot)
        stopwatch.lap("query_vectors")
        deadline.check("search")
        user_impact = _user_impact(query, vectors)
        found, source = self._search(query, vectors, eligibility, user_impact, deadline)
        stopwatch.lap("search")
        item_ids = self._snapshot.items.ids(found.rows)
        stopwatch.lap("order")
        return Answer(
            snapshot_id=self._snapshot.id,
            item_ids=item_ids,
            scores=found.scores.tolist(),
            source=source,
            search_path=found.path,
            selectivity=eligibility.count / len(self._snapshot.items),
            missing_ids=vectors.missing_ids,
            user_impact=user_impact if query.mode is Mode.RELATED else None,
            shortfall=eligibility.shortfall(options.k, len(item_ids)),
            explanation=self._explained(found.rows, vectors, stopwatch) if options.explain else None,
        )

    def estimated_us(self, query: Query) -> float:
        """Return an estimate of what ``query`` costs, in microseconds, on the high side: what it may come to."""
        options, snapshot = query.options, self._snapshot
        excluded_count = len(query.item_ids) + len(options.exclude_item_ids) + len(query.recent_items)
        cost = _ID_US * (excluded_count + len(options.candidate_item_ids or ()))
        if query.recent_items:
            cost += self._vectorizer.fold_in_us(len(query.recent_items))
        if options.candidate_item_ids is not None:
            return cost  # A list that fits in a request is scanned while its ids are looked up.
        if query.user_id and options.exclude_seen and snapshot.histories is not None:
            row = snapshot.users.row(query.user_id)
            if row is not None:
                excluded_count += int(snapshot.histories.indptr[row + 1] - snapshot.histories.indptr[row])
        k = options.k if query.mode is not Mode.RELATED else candidate_depth(options.k)
        searched = []
        if query.mode is not Mode.PERSONALIZE:
            searched.append(snapshot.likeness)
        if query.mode is not Mode.SIMILAR:
            searched.append(snapshot.affinity)
        for index in searched:
            cost += index.estimated_us(
                k, excluded_count=excluded_count, ef_search=options.ef_search, exact=options.exact
            )
        return cost

    def _search(
        self,
        query: Query,
        vectors: QueryVectors,
        eligibility: Eligibility,
        user_impact: float,
        deadline: Deadline,
    ) -> tuple[SearchResult, Source]:
        options = query.options
        likeness, affinity = vectors.likeness, vectors.affinity
        if likeness is not None and (affinity is None or user_impact == 0.0):
            index, vector, source = self._snapshot.likeness, likeness, Source.ITEM_VECTOR
        elif affinity is not None and (likeness is None or user_impact == 1.0):
            index, vector, source = self._snapshot.affinity, affinity, vectors.affinity_source
        elif likeness is not None and affinity is not None:
            found = blended(self._snapshot, likeness, affinity, user_impact, options, eligibility, deadline)
            return found, Source.BLEND
        else:
            return self._popular(options.k, eligibility), Source.POPULAR
        found = index.search(
            vector,
            options.k,
            restriction=eligibility.restriction,
            excluded=eligibility.excluded,
            ef_search=options.ef_search,
            exact=options.exact,
            deadline=deadline,
        )
        return found, source

    def _popular(self, k: int, eligibility: Eligibility) -> SearchResult:
        """Return the most popular eligible items; their score is the popularity prior."""
        rows = self._snapshot.popular_rows
        if eligibility.restriction is not None:
            rows = eligibility.restriction.rows
            rows = rows[np.argsort(-self._snapshot.popularity[rows], kind="stable")]
        elif eligibility.excluded.size:
            # Among the first k + |excluded| at least k are not excluded.
            rows = rows[: k + eligibility.excluded.size]
            rows = rows[~np.isin(rows, eligibility.excluded)]
        rows = rows[:k]
        return SearchResult(
            rows=rows,
            scores=self._snapshot.popularity[rows],
            path=SearchPath.EXACT,
            eligible_count=eligibility.count,
        )

    def _explained(self, rows: Rows, vectors: QueryVectors, stopwatch: Stopwatch) -> Explanation:
        likeness: list[float] = []
        affinity: list[float] = []
        popularity: list[float] = []
        if vectors.likeness is not None:
            likeness = self._snapshot.likeness.score_rows(vectors.likeness, rows).tolist()
        if vectors.affinity is not None:
            affinity = self._snapshot.affinity.score_rows(vectors.affinity, rows).tolist()
            popularity = (vectors.affinity[-1] * self._snapshot.popularity[rows]).tolist()
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
