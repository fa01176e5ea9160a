"""Which items a question may be answered with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annserve.domain.arrays import Rows
from annserve.domain.query import LimitingRule, Mode, Query, Shortfall
from annserve.engine.query_vectors import NO_ROWS, QueryVectors
from annserve.search.restriction import Restriction
from annserve.snapshot.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Eligibility:
    """The items that may be returned: those of ``restriction`` (None: every item) without ``excluded`` rows."""

    restriction: Restriction | None
    excluded: Rows
    """Without repeats; already taken out of ``restriction``, and then empty."""
    count: int
    rule: LimitingRule
    """What would be to blame for too few."""

    def shortfall(self, requested: int, returned: int) -> Shortfall | None:
        """Return why fewer came back than were asked for; None when they did not."""
        if returned >= requested:
            return None
        return Shortfall(requested=requested, returned=returned, eligible=self.count, limiting_rule=self.rule)


def eligibility_of(query: Query, vectors: QueryVectors, snapshot: Snapshot) -> Eligibility:
    """Return what ``query`` may be answered with: its candidates, without seeds, exclusions and seen items."""
    options = query.options
    excluded = vectors.seed_rows
    further = []
    if options.exclude_item_ids:
        further.append(_known_rows(options.exclude_item_ids, snapshot))
    if options.exclude_seen and query.mode is not Mode.SIMILAR:
        further.append(vectors.recent_rows)
        if vectors.user_row is not None and snapshot.histories is not None:
            further.append(snapshot.histories.of(vectors.user_row))
    if further:
        excluded = np.unique(np.concatenate([excluded, *further]))

    if options.candidate_item_ids is None:
        count = len(snapshot.items) - excluded.size
        rule = LimitingRule.EXCLUDED if len(snapshot.items) >= options.k else LimitingRule.CATALOGUE
        return Eligibility(restriction=None, excluded=excluded, count=count, rule=rule)
    candidates = np.unique(_known_rows(options.candidate_item_ids, snapshot))
    allowed = np.setdiff1d(candidates, excluded, assume_unique=True)
    # Exclusions are to blame only where the candidates alone would have filled the page.
    enough = candidates.size >= options.k
    rule = LimitingRule.EXCLUDED if enough else LimitingRule.CANDIDATE_ITEM_IDS
    return Eligibility(
        restriction=Restriction(allowed, len(snapshot.items)), excluded=NO_ROWS, count=int(allowed.size), rule=rule
    )


def _known_rows(item_ids: tuple[str, ...], snapshot: Snapshot) -> Rows:
    rows = (snapshot.items.row(item_id) for item_id in item_ids)
    return np.array([row for row in rows if row is not None], dtype=np.int64)
