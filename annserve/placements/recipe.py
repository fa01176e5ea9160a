"""What a placement says, compiled: values that the engine follows without knowing files or expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeAlias

from annserve.domain.filter import Field, Filter
from annserve.domain.query import Mode

if TYPE_CHECKING:
    from annserve.placements.parts import Part

ExpressionValue: TypeAlias = bool | float | str


class Expression(Protocol):
    """A compiled expression. Any thread may evaluate it; what it costs is bounded when it is compiled."""

    @property
    def text(self) -> str:
        """It, as the file has it."""
        ...

    @property
    def names(self) -> frozenset[str]:
        """The variables that it reads: of the request (`request.hour`), the item (`item.price`), its scores."""
        ...

    def evaluate(self, values: Mapping[str, object]) -> ExpressionValue | None:
        """Return its value; None where a variable that decides it is missing from ``values``."""
        ...


Number: TypeAlias = float | Expression
"""A constant, or an expression over the request alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """What to do when a condition over the request holds: ask a question, or show nothing."""

    when: Expression | None
    """None holds always."""
    mode: Mode | None
    """None shows nothing: `suppressed` says why."""
    user_impact: Number = 0.5
    suppressed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightRule:
    """Multiplies the scores of candidates that meet a condition. Exactly one of the three conditions is set."""

    name: str
    """As in the file: ``boosts[0]``."""
    weight: float
    """At least 0: above 1 promotes, below demotes, 0 takes out. A negative score is divided by it instead."""
    items: Filter | None = None
    """Over item fields alone: canonical, answered by bitmaps."""
    request: Expression | None = None
    """Over the request alone: evaluated once."""
    mixed: Expression | None = None
    """Over both, or over scores: followed by its parts."""
    parts: Part | None = None
    """Holds exactly where `mixed` does; set with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """At most so many items with one value of a field among any ``window`` neighbours; 0 means the whole answer."""

    name: str
    field: Field
    """Of a list, every value counts."""
    at_most: int
    window: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Puts an item at a rank, from 1 on, when a condition over the request holds; filter and exclusions still count."""

    name: str
    rank: int
    item_id: str
    when: Expression | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """Weights what the user was shown lately: ``1 - penalty * 0.5 ** (age / half_life)`` for each item."""

    penalty: float
    """0 to 1."""
    half_life_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryExclusion:
    """Leaves out the newest items of a user's history with one kind of event."""

    event: str
    last: int


class FallbackKind(Enum):
    """Where rows come from when too few were found."""

    RECENT_ITEMS = "recent_items"
    """The exact fold-in of what the user did lately."""
    PLACEMENT = "placement"
    """Another placement, without its own fallbacks."""
    POPULAR = "popular"
    """The most popular items that pass the filter."""
    ITEMS = "items"
    """A list in the file, in its order; items must pass the filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """A step of the chain."""

    kind: FallbackKind
    placement: str = ""
    item_ids: tuple[str, ...] = ()


class OnUnavailable(Enum):
    """What to do when the catalogue does not answer and too little is known of it for the filter."""

    FAIL = "fail"
    """UNAVAILABLE."""
    SKIP_FILTER = "skip_filter"
    """Answer without the filter, and say so."""
    FALLBACK = "fallback"
    """Go to the chain, whose steps then need no filter: editorial lists, other placements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What one variant of a placement does. Immutable; shared by threads."""

    name: str
    version: str
    """16 hexadecimal digits of the file's content."""
    experiment: str = ""
    variant: str = ""
    limit: int = 10
    """How many items to return when the request does not say, 1 to 500."""
    candidates: int = 200
    """How many candidates rules are applied to, 1 to 1,000, at least as many as are returned."""
    policy: tuple[PolicyRow, ...]
    """The first row whose condition holds decides; when none does nothing is shown."""
    filter: Filter | None = None
    exclude_seen: bool = True
    history_exclusions: tuple[HistoryExclusion, ...] = ()
    weights: tuple[WeightRule, ...] = ()
    diversity: float = 0.0
    """MMR, 0 to 1: 0 changes nothing."""
    caps: tuple[Cap, ...] = ()
    pins: tuple[Pin, ...] = ()
    rotation: Rotation | None = None
    exploration_share: float = 0.0
    """The share of a page for items that came since the snapshot, 0 to 1."""
    popularity_weight: float | None = None
    """See `domain.query.Options`; None leaves the snapshot's."""
    max_staleness_seconds: float | None = None
    on_unavailable: OnUnavailable = OnUnavailable.FAIL
    fallbacks: tuple[Fallback, ...] = ()
    strict: bool = False
    context_names: frozenset[str] = frozenset()
    """Names of the request's context that any of its expressions reads."""
    reads_clock: bool = False
    """Whether any expression reads the hour or the day."""
    reads_similarity: bool = False
    """Whether any expression reads the likeness of user and context."""

    @property
    def is_cacheable(self) -> bool:
        """Whether equal requests may be given one answer: not with rotation or exploration."""
        return self.rotation is None and self.exploration_share == 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextField:
    """A name of the request's context: its type as in CEL, and what it is when the request does not say."""

    type: str
    """``string``, ``double``, ``bool`` or ``timestamp``."""
    default: ExpressionValue | None = None


class Placement(Protocol):
    """A compiled file: its variants, and who gets which."""

    @property
    def name(self) -> str:
        """As requests call it."""
        ...

    @property
    def version(self) -> str:
        """16 hexadecimal digits of the file's content."""
        ...

    @property
    def time_zone(self) -> str:
        """IANA name of the zone of `request.hour`."""
        ...

    @property
    def context(self) -> Mapping[str, ContextField]:
        """The declared names of the request's context."""
        ...

    @property
    def experiment(self) -> str:
        """The experiment it takes part in; empty without one."""
        ...

    def recipe(self, unit: str | None, forced_variant: str | None = None) -> Recipe:
        """Return the recipe of the variant that ``unit`` is assigned to; the first one's for None.

        Raises:
            InvalidArgumentError: there is no variant called ``forced_variant``.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementSet:
    """All placements at one moment: replaced as a whole, never changed."""

    placements: Mapping[str, Placement] = field(default_factory=dict)
    version: int = 0
    """A number that no other content has in this instance: of the content's hash, so equal in all workers."""
    names: Sequence[str] = field(init=False, compare=False)
    """Of all of them, in order."""

    def __post_init__(self) -> None:
        """Put the names in order, once: calls for others are answered with those beside."""
        object.__setattr__(self, "names", tuple(sorted(self.placements)))
