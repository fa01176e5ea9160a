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
    allowed_count: int
    """Of items of `restriction`, excluded or not."""
    listed_count: int | None
    """How many items the request's own list would have allowed; None without one."""
    rule: LimitingRule
    """What made `restriction` as small as it is, the request's own list aside."""

    def shortfall(self, requested: int, returned: int) -> Shortfall | None:
        """Return why fewer came back than were asked for; None when they did not."""
        if returned >= requested:
            return None
        rule = self.rule
        if self.allowed_count >= requested:
            rule = LimitingRule.EXCLUDED
        elif self.listed_count is not None and self.listed_count < requested:
            # The filter is to blame only where the listed items alone would have filled the page.
            rule = LimitingRule.CANDIDATE_ITEM_IDS
        return Shortfall(requested=requested, returned=returned, eligible=self.count, limiting_rule=rule)


def eligibility_of(
    query: Query, vectors: QueryVectors, snapshot: Snapshot, items: LiveItems, knowledge: Knowledge
) -> Eligibility:
    """Return what ``query`` may be answered with: what is allowed, without seeds, exclusions and seen items."""
    options = query.options
    excluded = vectors.seed_rows
    further = []
    if knowledge.excluded_rows.size:
        further.append(knowledge.excluded_rows)
    if options.exclude_item_ids:
        further.append(items.rows(options.exclude_item_ids))
    if options.exclude_seen and query.mode is not Mode.SIMILAR:
        further += [vectors.recent_rows, knowledge.seen_rows]
        if vectors.user_row is not None and snapshot.histories is not None:
            further.append(snapshot.histories.of(vectors.user_row))
    if further:
        excluded = np.unique(np.concatenate([excluded, *further]))

    restriction, rule, listed_count = knowledge.allowed, LimitingRule.CATALOGUE, None
    if restriction is not None and options.filter is not None:
        rule = LimitingRule.FILTER
    if options.candidate_item_ids is not None:
        candidates = BitMap(items.rows(options.candidate_item_ids))
        allowed = candidates if restriction is None else candidates & restriction.whole
        listed_count = len(candidates)
        restriction = Restriction.over(allowed, items.row_count)
    allowed_count, count = items.counts(restriction, excluded)
    return Eligibility(
        restriction=restriction,
        excluded=excluded,
        count=count,
        allowed_count=allowed_count,
        listed_count=listed_count,
        rule=rule,
    )
