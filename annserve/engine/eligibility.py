"""Which items a question may be answered with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyroaring import BitMap

from annserve.domain.arrays import Rows
from annserve.domain.query import LimitingRule, Mode, Query, Shortfall
from annserve.engine.knowledge import Knowledge
from annserve.engine.live_items import LiveItems
from annserve.engine.query_vectors import QueryVectors
from annserve.search.restriction import Restriction
from annserve.snapshot.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Eligibility:
    """The items that may be returned: those of ``restriction`` (None: every item) without ``excluded`` rows."""

    restriction: Restriction | None
    excluded: Rows
    """Without repeats; rows of `restriction`, or of items that are there, or not."""
    count: int
    rule: LimitingRule
    """What would be to blame for too few."""

    def shortfall(self, requested: int, returned: int) -> Shortfall | None:
        """Return why fewer came back than were asked for; None when they did not."""
        if returned >= requested:
            return None
        return Shortfall(requested=requested, returned=returned, eligible=self.count, limiting_rule=self.rule)


def eligibility_of(
    query: Query, vectors: QueryVectors, snapshot: Snapshot, items: LiveItems, knowledge: Knowledge
) -> Eligibility:
    """Return what ``query`` may be answered with: what is allowed, without seeds, exclusions and seen items."""
    options = query.options
    excluded = vectors.seed_rows
    further = []
    if options.exclude_item_ids:
        further.append(items.rows(options.exclude_item_ids))
    if options.exclude_seen and query.mode is not Mode.SIMILAR:
        further += [vectors.recent_rows, knowledge.seen_rows]
        if vectors.user_row is not None and snapshot.histories is not None:
            further.append(snapshot.histories.of(vectors.user_row))
    if further:
        excluded = np.unique(np.concatenate([excluded, *further]))

    restriction, rule = knowledge.allowed, LimitingRule.CATALOGUE
    if restriction is not None and options.filter is not None:
        rule = LimitingRule.FILTER
    if options.candidate_item_ids is not None:
        candidates = BitMap(items.rows(options.candidate_item_ids))
        allowed = candidates if restriction is None else candidates & restriction.whole
        # The filter is to blame only where the candidates alone would have filled the page.
        rule = rule if len(candidates) >= options.k else LimitingRule.CANDIDATE_ITEM_IDS
        restriction = Restriction.over(allowed, items.row_count)
    allowed_count, count = items.counts(restriction, excluded)
    if allowed_count >= options.k:
        rule = LimitingRule.EXCLUDED
    return Eligibility(restriction=restriction, excluded=excluded, count=count, rule=rule)
