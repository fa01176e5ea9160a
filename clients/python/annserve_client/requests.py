"""What can be asked. Bounds and defaults are the server's: it says which field is wrong, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from annserve_client.filters import Filter, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a request is to be answered; None leaves a choice to the server."""

    page_size: int | None = None
    """How many items to return, 1 to 500; 10 unless set."""
    exclude_item_ids: Sequence[str] = ()
    """Items that must not be returned; at most 1,000."""
    candidate_item_ids: Sequence[str] | None = None
    """Only these may be returned, at most 1,000; empty means none, None means every item."""
    filter: Filter | None = None
    """What the metadata of returned items must be like; anything, unless set. Needs a server with a catalogue."""
    read_mask: Sequence[str] = ()
    """The declared fields to return as `metadata` of each item; at most 32. Needs a server with a catalogue."""
    max_staleness_seconds: float | None = None
    """How old what is known of the catalogue may be, 0 to 86,400; 0 asks the catalogue itself. The server's own bound
    unless set."""
    exclude_seen: bool | None = None
    """Whether what the user is known to have had is left out; it is, unless set."""
    popularity_weight: float | None = None
    """What the popularity prior counts in affinity, -10 to 10; the snapshot's own weight unless set."""
    ef_search: int | None = None
    """How many candidates the graph search keeps, 1 to 1,000; as the snapshot was tuned unless set."""
    exact: bool = False
    """Whether to compare with every eligible item instead of searching the graph."""
    snapshot_id: str | None = None
    """The snapshot that must answer; any unless set."""
    strict: bool = False
    """Whether an id without a vector fails the request instead of being listed in `missing_ids`."""
    explain: bool = False
    """Whether the answer says what its scores are made of and how long its stages took."""
    bypass_cache: bool = False
    """Whether the answer is made for this request even where one to an equal request is kept."""


DEFAULT_OPTIONS = Options()


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedItem:
    """An item the user dealt with, and how much that counts: above 0, at most 1,000,000."""

    item_id: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Similar:
    """Asks for the items most like one or several seed items; 1 to 100."""

    item_ids: Sequence[str]
    options: Options = field(default=DEFAULT_OPTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Personalize:
    """Asks for the items that suit a user best, by id, by recent items (oldest first, at most 200), or both."""

    user_id: str | None = None
    recent_items: Sequence[WeightedItem] = ()
    options: Options = field(default=DEFAULT_OPTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """Asks for the items that go with what is on screen (1 to 100 items), for this user."""

    item_ids: Sequence[str]
    user_id: str | None = None
    recent_items: Sequence[WeightedItem] = ()
    user_impact: float | None = None
    """How much taste counts against context, 0 to 1; 0.5 unless set."""
    options: Options = field(default=DEFAULT_OPTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommend:
    """Asks for what a placement shows here and now."""

    placement: str
    item_ids: Sequence[str] = ()
    """What is on screen, or in the basket; at most 100."""
    user_id: str | None = None
    recent_items: Sequence[WeightedItem] = ()
    context: Mapping[str, Value] = field(default_factory=dict)
    """The circumstances, by the names that the placement declares."""
    experiment_unit: str | None = None
    """Whom experiments assign to variants; `user_id` unless set."""
    forced_variants: Mapping[str, str] = field(default_factory=dict)
    """Variants to answer instead of those assigned, by experiment."""
    options: Options = field(default=DEFAULT_OPTIONS)


Request = Similar | Personalize | Related | Recommend
