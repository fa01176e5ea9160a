"""A request and its answer, free of any transport."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class Mode(Enum):
    """Which question is asked."""

    SIMILAR = "similar"
    PERSONALIZE = "personalize"
    RELATED = "related"


class Source(Enum):
    """Who filled a row of the answer."""

    ITEM_VECTOR = "item_vector"
    USER_VECTOR = "user_vector"
    FOLD_IN = "fold_in"
    BLEND = "blend"
    POPULAR = "popular"


class SearchPath(Enum):
    """How candidates were found."""

    HNSW = "hnsw"
    EXACT = "exact"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedItem:
    """An item of the user's recent past and how much it counts, above 0."""

    item_id: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every question can be asked with. Validated at the edge: `service.convert`."""

    k: int = 10
    exclude_item_ids: tuple[str, ...] = ()
    candidate_item_ids: tuple[str, ...] | None = None
    """Only these may be returned; None means every item, an empty tuple none."""
    exclude_seen: bool = True
    popularity_weight: float | None = None
    ef_search: int | None = None
    exact: bool = False
    snapshot_id: str | None = None
    strict: bool = False
    explain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question: seed items (similar), a user (personalize), or context items and a user (related)."""

    mode: Mode
    item_ids: tuple[str, ...] = ()
    user_id: str | None = None
    recent_items: tuple[WeightedItem, ...] = ()
    """Oldest first. When present they replace the user's stored vector."""
    user_impact: float = 0.5
    options: Options = field(default_factory=Options)


class LimitingRule(Enum):
    """What kept an answer shorter than asked."""

    CATALOGUE = "catalogue"
    """There are no more items."""
    CANDIDATE_ITEM_IDS = "candidate_item_ids"
    EXCLUDED = "excluded"
    """Seeds, `exclude_item_ids` and seen items took the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """Why fewer came back than were asked for. All are counts of items."""

    requested: int
    returned: int
    eligible: int
    limiting_rule: LimitingRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How an answer came about; parallel to its rows where a sequence."""

    likeness_scores: Sequence[float] = ()
    """Empty where no item vector took part."""
    affinity_scores: Sequence[float] = ()
    """Prior included; empty where no user vector took part."""
    popularity_contributions: Sequence[float] = ()
    """The share of each affinity score that is the popularity prior."""
    stage_us: tuple[tuple[str, float], ...] = ()
    """Microseconds per stage, in the order they ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the engine found, best first. `item_ids` and `scores` are parallel."""

    snapshot_id: str
    item_ids: Sequence[str]
    scores: Sequence[float]
    source: Source
    """Who filled the rows: one source fills a whole answer until fallback chains arrive."""
    search_path: SearchPath
    selectivity: float
    """The share of items that were eligible, 0 to 1."""
    missing_ids: tuple[str, ...] = ()
    user_impact: float | None = None
    """Related only: the weight of taste that was used; 0 or 1 when the other half had no vector."""
    shortfall: Shortfall | None = None
    explanation: Explanation | None = None
