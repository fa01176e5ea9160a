"""What is answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum


class Source(str, Enum):
    """Who filled a row of an answer."""

    UNKNOWN = "unknown"
    """A source that this client is too old to know."""
    ITEM_VECTOR = "item_vector"
    USER_VECTOR = "user_vector"
    FOLD_IN = "fold_in"
    BLEND = "blend"
    POPULAR = "popular"


class SearchPath(str, Enum):
    """How candidates were found."""

    UNKNOWN = "unknown"
    HNSW = "hnsw"
    EXACT = "exact"


class LimitingRule(str, Enum):
    """What kept an answer shorter than asked."""

    UNKNOWN = "unknown"
    CATALOGUE = "catalogue"
    CANDIDATE_ITEMS = "candidate_items"
    EXCLUDED = "excluded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreExplanation:
    """What a score is made of; None where a part took no part."""

    likeness: float | None
    affinity: float | None
    """Popularity prior included."""
    popularity_contribution: float | None
    """The part of `affinity` that is the prior."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """One item of an answer."""

    item_id: str
    score: float
    """Larger is better; scores compare within one answer."""
    source: Source
    explanation: ScoreExplanation | None
    """None unless the request said `explain`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """Why fewer items came back than were asked for. All are counts of items."""

    requested_count: int
    returned_count: int
    eligible_count: int
    limiting_rule: LimitingRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendations:
    """An answer; iterating over it gives its items, best first."""

    results: tuple[Recommendation, ...]
    snapshot_id: str
    missing_ids: tuple[str, ...]
    """Ids of the request that have no vector in the snapshot."""
    shortfall: Shortfall | None
    """None when as many came back as were asked for."""
    search_path: SearchPath
    selectivity: float
    """The share of the snapshot's items that were eligible, 0 to 1."""
    user_impact: float | None
    """Related only: the weight that taste had."""
    attribution_token: str
    """Names this answer in events that come of it."""
    stage_seconds: Mapping[str, float]
    """How long each stage took; empty unless the request said `explain`."""

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)
