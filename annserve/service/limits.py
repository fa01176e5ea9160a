"""Every limit of the contract, in one table, named as in proto/annserve/v1."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limit:
    """What a field's value, or the number of its entries, may be; both ends are allowed."""

    field: str
    """``Message.field``, without the package."""
    minimum: int
    maximum: int
    counted: str | None = None
    """What is counted, ``entries`` or ``bytes``; None where the value itself is looked at."""

    def problem(self, value: float) -> str | None:
        """Return what keeps ``value`` from being allowed, worded to follow a field's name; None when nothing does."""
        # NaN compares false with everything, so it gets past this as the problem it is.
        if self.minimum <= value <= self.maximum:
            return None
        if not math.isfinite(value):
            return f"must be a finite number, got {value}"
        bound = f"at least {self.minimum:,}" if value < self.minimum else f"at most {self.maximum:,}"
        return (
            f"must have {bound} {self.counted}, got {value}" if self.counted else f"must be {bound}, got {value:.10g}"
        )


PAGE_SIZE: Final = Limit("RecommendOptions.page_size", 0, 500)
PAGE_SIZE_DEFAULT: Final = 10
POPULARITY_WEIGHT: Final = Limit("RecommendOptions.popularity_weight", -10, 10)
EXCLUDE_ITEM_IDS: Final = Limit("RecommendOptions.exclude_item_ids", 0, 1_000, counted="entries")
CANDIDATE_ITEM_IDS: Final = Limit("CandidateItems.item_ids", 0, 1_000, counted="entries")
EF_SEARCH: Final = Limit("SearchParameters.ef_search", 0, 1_000)
WEIGHT: Final = Limit("WeightedItem.weight", 0, 1_000_000)
SEED_ITEM_IDS: Final = Limit("SimilarRequest.item_ids", 1, 100, counted="entries")
CONTEXT_ITEM_IDS: Final = Limit("RelatedRequest.item_ids", 1, 100, counted="entries")
SHOWN_ITEM_IDS: Final = Limit("RecommendRequest.item_ids", 0, 100, counted="entries")
CONTEXT: Final = Limit("RecommendRequest.context", 0, 32, counted="entries")
CONTEXT_STRING_BYTES: Final = Limit("ContextValue.string_value", 0, 256, counted="bytes")
FORCED_VARIANTS: Final = Limit("RecommendRequest.forced_variants", 0, 8, counted="entries")
USER_IMPACT: Final = Limit("RelatedRequest.user_impact", 0, 1)
USER_IMPACT_DEFAULT: Final = 0.5
RECENT_ITEMS: Final = Limit("PersonalizeRequest.recent_items", 0, 200, counted="entries")
ROWS: Final = Limit("BatchRecommendRequest.rows", 1, 100, counted="entries")
READ_MASK: Final = Limit("RecommendOptions.read_mask", 0, 32, counted="entries")
MAX_STALENESS: Final = Limit("ConsistencyOptions.max_staleness", 0, 86_400)
FILTERS: Final = Limit("FilterList.filters", 1, 63, counted="entries")
ONE_OF: Final = Limit("FieldCondition.one_of", 1, 200, counted="entries")
STRING_BYTES: Final = Limit("FieldValue.string_value", 0, 256, counted="bytes")

PLACEMENT: Final = re.compile(r"[a-z0-9_-]{1,64}")
"""What a placement may be called."""

FILTER_DEPTH_MAX: Final = 8
"""How deep conditions may be nested; a condition alone is 1 deep."""

FILTER_NODES_MAX: Final = 64
"""How many `Filter` messages make up a filter, at most."""

FILTER_VALUES_MAX: Final = 1_000
"""How many values all its conditions name together, at most."""

TIME_SECONDS_MIN: Final = -62_135_596_800
"""0001-01-01T00:00:00Z, where `google.protobuf.Timestamp` begins, in seconds since 1970."""

TIME_SECONDS_MAX: Final = 253_402_300_799
"""9999-12-31T23:59:59Z, where it ends."""

BATCH_PAGE_SIZE_MAX: Final = 5_000
"""What the page sizes of a batch may add up to."""

VIOLATIONS_MAX: Final = 10
"""How many wrong fields one error lists."""

REQUEST_BYTES_MAX: Final = 640 * 1024
"""Room for one request at every limit at once: 2,300 ids of 128 bytes are 300 kB, 1,000 values of 256 are 265 kB."""

RESPONSE_BYTES_MAX: Final = 2 * 1024 * 1024
"""Room for a batch at every limit at once: 5,000 explained items are 0.8 MB, missing ids no more than the request."""
