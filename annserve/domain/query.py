"""A request and its answer, free of any transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TypeAlias

from annserve.domain.catalog import Metadata
from annserve.domain.filter import Filter


class Degradation(Enum):
    """What an answer had to do without."""

    CATALOG_STALE = "catalog_stale"
    """The filter was applied to a catalogue whose changes do not arrive at present."""
    HISTORY_UNAVAILABLE = "history_unavailable"
    """The user's history could not be read: only what the snapshot knows of it was used."""
    METADATA_UNAVAILABLE = "metadata_unavailable"
    """The fields of `read_mask` could not be read."""
    RULES_SKIPPED = "rules_skipped"
    """Rules of the placement that test metadata were left out: it could not be read."""
    FILTER_SKIPPED = "filter_skipped"
    """The catalogue did not answer, and the placement goes on without the filter."""


class Mode(Enum):
    """Which question is asked."""

    SIMILAR = "similar"
    PERSONALIZE = "personalize"
    RELATED = "related"
    PLACEMENT = "placement"
    """Whatever the placement asks here and now: `Query.placed` says which."""


class Source(Enum):
    """Who filled a row of the answer."""

    ITEM_VECTOR = "item_vector"
    USER_VECTOR = "user_vector"
    FOLD_IN = "fold_in"
    BLEND = "blend"
    POPULAR = "popular"
    EDITORIAL = "editorial"
    """A list in the placement's file."""
    EXPLORATION = "exploration"
    """The share of a page that goes to fresh items."""


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
    filter: Filter | None = None
    """In canonical form; only items of the catalogue that pass may be returned."""
    read_mask: tuple[str, ...] = ()
    """Names of declared fields to return with each item."""
    max_staleness_seconds: float | None = None
    """How old what is known of the catalogue may be; None for the server's default, 0 to ask the store itself."""
    exclude_seen: bool = True
    popularity_weight: float | None = None
    ef_search: int | None = None
    exact: bool = False
    snapshot_id: str | None = None
    strict: bool = False
    explain: bool = False
    bypass_cache: bool = False
    """Whether an answer to an equal question that is kept will not do."""


ContextValue: TypeAlias = str | float | bool | datetime
"""A circumstance of a request; a time has a zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Which placement is asked, and under what circumstances."""

    placement: str
    context: Mapping[str, ContextValue] = field(default_factory=dict)
    experiment_unit: str | None = None
    """Whom experiments assign; None for the user."""
    forced_variants: Mapping[str, str] = field(default_factory=dict)
    """Variants to answer instead of those assigned, by experiment."""
    page_size: int | None = None
    """None for the placement's own; `Options.k` means nothing then."""
    exclude_seen: bool | None = None
    """None for the placement's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question: seed items (similar), a user (personalize), or context items and a user (related).

    Or, with `placed`, whatever a placement makes of context items and user.
    """

    mode: Mode
    item_ids: tuple[str, ...] = ()
    user_id: str | None = None
    recent_items: tuple[WeightedItem, ...] = ()
    """Oldest first. When present they replace the user's stored vector."""
    user_impact: float = 0.5
    options: Options = field(default_factory=Options)
    placed: Placed | None = None
    """Set with `Mode.PLACEMENT`, and with no other."""


class LimitingRule(Enum):
    """What kept an answer shorter than asked."""

    CATALOGUE = "catalogue"
    """There are no more items."""
    CANDIDATE_ITEM_IDS = "candidate_item_ids"
    FILTER = "filter"
    PLACEMENT = "placement"
    """The placement's caps and weights of 0 took the rest of its candidates."""
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
    stage_counts: Mapping[str, int] = field(default_factory=dict)
    """How many rows there were after a stage, where it counts them; only of a placement's answer."""
    catalog_use: CatalogUse | None = None
    """None without a catalogue."""
    user_similarities: Sequence[float] = ()
    """Cosines of each row's bare vector and the user's; only of a placement's answer."""
    context_similarities: Sequence[float] = ()
    """The same with the context items' mean unit vector."""
    effects: Sequence[Sequence[RuleEffect]] = ()
    """What the placement's rules did to each row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleEffect:
    """What a rule of a placement did to a row."""

    rule: str
    """As in the file: ``boosts[0]``, ``diversity``, ``caps[1]``, ``pins[0]``, ``rotation``, ``exploration``."""
    weight: float | None = None
    """The factor it moved the row by; None where it moved it otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementUse:
    """How a placement answered."""

    name: str
    version: str
    experiment: str = ""
    variant: str = ""
    mode: Mode | None
    """None when the answer is suppressed."""
    suppressed_reason: str = ""
    user_context_similarity: float | None = None
    """The cosine of the bare vectors; None where one is missing or nothing asked for it."""


@dataclass(slots=True, kw_only=True)
class CatalogUse:
    """What answering took of the catalogue, counted."""

    bitmap_hits: int = 0
    """Leaves of the filter whose bitmap was there."""
    bitmap_misses: int = 0
    candidate_rounds: int = 0
    """How often candidates were looked for and checked with the store."""
    candidates_checked: int = 0
    database_calls: int = 0
    """Look-ups this answer waited for: checks, histories, metadata."""
    history_hits: int = 0
    metadata_hits: int = 0
    """Items whose metadata was there."""

    def add(self, other: CatalogUse) -> None:
        """Count what ``other`` counted too."""
        self.bitmap_hits += other.bitmap_hits
        self.bitmap_misses += other.bitmap_misses
        self.candidate_rounds += other.candidate_rounds
        self.candidates_checked += other.candidates_checked
        self.database_calls += other.database_calls
        self.history_hits += other.history_hits
        self.metadata_hits += other.metadata_hits


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the engine found, best first. `item_ids` and `scores` are parallel."""

    snapshot_id: str
    item_ids: Sequence[str]
    scores: Sequence[float]
    source: Source
    """Who filled the rows, but for those that `row_sources` tells of."""
    search_path: SearchPath
    selectivity: float | None
    """The share of items that were eligible, 0 to 1; None where only candidates were looked at."""
    metadata: Sequence[Metadata] = ()
    """The fields asked for, a mapping a row; empty when none were."""
    catalog_age_seconds: float | None = None
    """How old what was known of the catalogue is; None where it was not needed."""
    degradations: tuple[Degradation, ...] = ()
    missing_ids: tuple[str, ...] = ()
    user_impact: float | None = None
    """Related only: the weight of taste that was used; 0 or 1 when the other half had no vector."""
    shortfall: Shortfall | None = None
    explanation: Explanation | None = None
    placement: PlacementUse | None = None
    row_sources: Sequence[Source] = ()
    """Who filled each row; empty where `source` filled them all."""
    fallback_steps: Sequence[int] = ()
    """Which step of the fallback chain filled each row, from 1 on, 0 for none; empty where none had to."""
