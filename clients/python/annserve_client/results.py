"""What is answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from annserve_client.filters import Value


class Source(str, Enum):
    """Who filled a row of an answer."""

    UNKNOWN = "unknown"
    """A source that this client is too old to know."""
    ITEM_VECTOR = "item_vector"
    USER_VECTOR = "user_vector"
    FOLD_IN = "fold_in"
    BLEND = "blend"
    POPULAR = "popular"
    EDITORIAL = "editorial"
    """A list in the placement's file."""
    EXPLORATION = "exploration"
    """The share of a page that the placement gives to fresh items."""


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
    FILTER = "filter"
    PLACEMENT = "placement"


class Degradation(str, Enum):
    """What an answer had to do without."""

    UNKNOWN = "unknown"
    CATALOG_STALE = "catalog_stale"
    """The filter was applied as the catalogue stood `catalog_age_seconds` ago: its changes do not arrive."""
    HISTORY_UNAVAILABLE = "history_unavailable"
    """The user's history could not be read: only what the snapshot knows of it was used."""
    METADATA_UNAVAILABLE = "metadata_unavailable"
    """The fields of `read_mask` could not be read."""
    RULES_SKIPPED = "rules_skipped"
    """Rules of the placement that test metadata were left out: it could not be read."""
    FILTER_SKIPPED = "filter_skipped"
    """The catalogue did not answer, and the placement goes on without the filter."""


class CacheSource(str, Enum):
    """Who had an answer."""

    UNKNOWN = "unknown"
    NONE = "none"
    """Nobody: it was made for this call, or for an equal one at the same moment."""
    WORKER = "worker"
    """The worker that answered."""
    INSTANCE = "instance"
    """The instance: another of its workers had made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleEffect:
    """What a rule of a placement did to an item."""

    rule: str
    """As it is called in the file: `boosts[0]`."""
    weight: float | None
    """The factor by which it moved the item; None where it moved it otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreExplanation:
    """What a score is made of; None where a part took no part."""

    likeness: float | None
    affinity: float | None
    """Popularity prior included."""
    popularity_contribution: float | None
    """The part of `affinity` that is the prior."""
    user_similarity: float | None = None
    """The cosine of the item's bare vector and the user's; answers of placements alone have it."""
    context_similarity: float | None = None
    """The same with the context items' mean unit vector."""
    effects: tuple[RuleEffect, ...] = ()
    """What the placement's rules did to the item, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """One item of an answer."""

    item_id: str
    score: float
    """Larger is better; scores compare within one answer."""
    source: Source
    explanation: ScoreExplanation | None
    """None unless the request said `explain`."""
    metadata: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """The fields of `read_mask` by name: one value, or those of a list. What the item lacks is left out; so is what
    is of another type than declared. Numbers are floats, times in UTC."""

    fallback_step: int = 0
    """Which step of the placement's fallback chain filled this row, from 1 on; 0 when none had to."""

    def value(self, name: str) -> Value | None:
        """Return the first value of a field of `metadata`, None when there is none."""
        return next(iter(self.metadata.get(name, ())), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """Why fewer items came back than were asked for. All are counts of items."""

    requested_count: int
    returned_count: int
    eligible_count: int
    limiting_rule: LimitingRule


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogUse:
    """What an answer took of the catalogue, counted."""

    bitmap_hit_count: int
    """Tests of the filter whose result was known for every item."""
    bitmap_miss_count: int
    candidate_round_count: int
    """How often candidates were searched for and checked with the catalogue."""
    checked_candidate_count: int
    database_call_count: int
    """Calls of the catalogue that the answer waited for."""
    history_hit_count: int
    metadata_hit_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementUse:
    """How a placement answered."""

    name: str
    version: str = ""
    """Names the content of its file."""
    experiment: str = ""
    variant: str = ""
    mode: str = ""
    """Which question was asked in the end: similar, personalize or related; empty when the answer is suppressed."""
    suppressed_reason: str = ""
    user_context_similarity: float | None = None
    """The cosine of the user's and the context items' vectors; None where nothing asked for it."""


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
    selectivity: float | None
    """The share of the snapshot's items that were eligible, 0 to 1; None when only candidates were checked."""
    user_impact: float | None
    """Related only: the weight that taste had."""
    attribution_token: str
    """Names this answer in events that come of it."""
    stage_seconds: Mapping[str, float]
    """How long each stage took; empty unless the request said `explain`."""
    catalog_age_seconds: float | None = None
    """How old what was known of the catalogue is; None where it took no part."""
    degradations: tuple[Degradation, ...] = ()
    """What the answer had to do without; empty when all is well."""
    catalog_use: CatalogUse | None = None
    """None unless the request said `explain` and the server has a catalogue."""
    cache_source: CacheSource | None = None
    """Who had the answer; None where a kept one could not do, as for `explain`, `bypass_cache` and rows of a batch."""
    cache_age_seconds: float | None = None
    """How long ago the making of it began; None where `cache_source` is."""
    placement: PlacementUse | None = None
    """How the placement that was asked answered; None where none was."""

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)
