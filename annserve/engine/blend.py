"""Related: context and taste in one order."""

from __future__ import annotations

import numpy as np

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.domain.deadline import Deadline
from annserve.domain.query import Options, SearchPath
from annserve.engine.eligibility import Eligibility
from annserve.engine.live_items import LiveItems
from annserve.search.exact import top_k
from annserve.search.index import SearchResult

CANDIDATES_MIN = 100


def candidate_depth(k: int) -> int:
    """Return how many candidates each space offers for a page of ``k``.

    At least 100 and at least twice the page: deep enough to find an item that is good in both spaces, best in neither.
    """
    return max(CANDIDATES_MIN, 2 * k)


def blended(
    items: LiveItems,
    likeness_query: Vectors,
    affinity_query: Vectors,
    user_impact: float,
    options: Options,
    eligibility: Eligibility,
    deadline: Deadline,
    fallback_us_max: float,
) -> SearchResult:
    """Return the top ``options.k`` by ``(1 - w) z(likeness) + w z(affinity)``, ``w`` being ``user_impact``.

    Candidates are the union of the top lists of both spaces; ``z`` standardises a score over that union. For one
    union, raising ``w`` never lowers the mean affinity of the result nor raises its mean likeness.
    """
    depth = candidate_depth(options.k)
    found = [
        index.search(
            query,
            depth,
            restriction=eligibility.restriction,
            excluded=eligibility.excluded,
            ef_search=options.ef_search,
            exact=options.exact,
            fallback_us_max=fallback_us_max,
            deadline=deadline,
        )
        for index, query in ((items.likeness, likeness_query), (items.affinity, affinity_query))
    ]
    rows: Rows = np.union1d(found[0].rows, found[1].rows)
    likeness = standardised(items.likeness.score_rows(likeness_query, rows))
    affinity = standardised(items.affinity.score_rows(affinity_query, rows))
    best, scores = top_k((1.0 - user_impact) * likeness + user_impact * affinity, options.k)
    path = SearchPath.HNSW if SearchPath.HNSW in (found[0].path, found[1].path) else SearchPath.EXACT
    return SearchResult(rows=rows[best], scores=scores, path=path, eligible_count=found[0].eligible_count)


def standardised(scores: Scores) -> Scores:
    """Return ``scores`` with mean 0 and deviation 1, shape kept; all zero where they do not differ."""
    centred: Scores = scores - scores.mean() if scores.size else scores
    deviation = np.sqrt(np.mean(centred * centred)) if scores.size else 0.0
    return centred / deviation if deviation > 0 else np.zeros_like(scores)
