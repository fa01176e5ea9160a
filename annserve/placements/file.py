"""What a placement file may say: its keys, their types and bounds. What they mean together is `compiling`'s matter."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

NAME_PATTERN: Final = r"^[a-z0-9_-]{1,64}$"
RULES_MAX: Final = 32
"""Entries of a list of rules."""

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)")
_DURATION_MAX: Final = timedelta(days=3_650).total_seconds()


def _seconds(value: Any) -> float:
    if isinstance(value, float):  # Read already.
        return value
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError("duration", "must be a duration such as 500ms, 30s, 10m, 12h or 7d")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds > _DURATION_MAX:
        raise PydanticCustomError("duration", "must be at most 3650d")
    return seconds


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise PydanticCustomError("finite", "must be a finite number")
    return value


Duration: TypeAlias = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"}),
]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Name: TypeAlias = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Word: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Text: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Condition: TypeAlias = Annotated[
    str,
    # What is written true or false in YAML is no text, and a fine condition.
    BeforeValidator(lambda value: str(value).lower() if isinstance(value, bool) else value),
    StringConstraints(min_length=1, max_length=1_000),
    WithJsonSchema({"type": ["string", "boolean"], "description": "A condition: see docs/placements.md#expressions."}),
]
ItemId: TypeAlias = Annotated[
    str,
    # Ids of digits look like numbers to YAML.
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    WithJsonSchema({"type": ["string", "integer"]}),
]
Mode: TypeAlias = Literal["similar", "personalize", "related"]


def _number_or_text(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise PydanticCustomError("impact", "must be a number from 0 to 1, or an expression that gives one")
    if isinstance(value, int | float) and not 0 <= value <= 1:
        raise PydanticCustomError(
            "impact", "must be from 0 (context only) to 1 (taste only), got {given}", {"given": value}
        )
    return value


Impact: TypeAlias = Annotated[
    Any,
    BeforeValidator(_number_or_text),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string"}]}),
]
"""A `float`, or the `str` of an expression."""


class Section(BaseModel):
    """A part of the file: nothing unknown in it, and no value of another type than declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class ContextEntry(Section):
    """A circumstance that requests tell; a bare type will do."""

    type: Literal["string", "number", "boolean", "time"]
    default: Any = None
    """What it is when a request does not say; without it, rules that test it do not hold then."""


class PolicyEntry(Section):
    """A row of the policy: the first whose condition holds decides."""

    when: Condition | None = None
    """Over the request alone; only the last row may do without."""
    mode: Mode | None = None
    """Which question to ask."""
    user_impact: Impact = 0.5
    """Of `related`: the weight of taste, 0 to 1, or an expression over the request."""
    suppress: Text | None = None
    """Instead of a mode: show nothing, for this reason."""


class WeightEntry(Section):
    """Multiplies the scores of candidates that meet a condition."""

    when: Condition
    weight: Annotated[float, Field(ge=0, le=1_000)]
    """0 takes them out."""


class CapEntry(Section):
    """Limits how many items share a value of a field."""

    field: Word
    at_most: Annotated[int, Field(ge=1, le=500)]
    window: Annotated[int, Field(ge=2, le=500)] | None = None
    """Among how many neighbours; the whole answer without it."""


class PinEntry(Section):
    """Puts an item at a rank."""

    rank: Annotated[int, Field(ge=1, le=500)]
    item: ItemId
    when: Condition | None = None
    """Over the request alone; always without it."""


class RotationEntry(Section):
    """Weights down what the user was shown lately."""

    penalty: Share
    """What an item shown just now loses of its score; 1 is all."""
    half_life: Duration
    """After which half of the penalty is left."""


class HistoryEntry(Section):
    """The newest items of one kind of event in the user's history."""

    event: Text
    last: Annotated[int, Field(ge=1, le=1_000)]


class ExcludeEntry(Section):
    """What is left out whatever its score."""

    seen: bool = True
    """Items of the user's past, as the snapshot and the catalogue know it."""
    history: Annotated[list[HistoryEntry], Field(max_length=RULES_MAX)] = []
    """Of each, the newest so many, for example the last 5 dislikes."""


class FallbackEntry(Section):
    """A step of the chain that fills a short answer; exactly one key, of which two may be bare words."""

    recent_items: Literal[True] | None = None
    """The exact fold-in of what the user did lately."""
    popular: Literal[True] | None = None
    """The most popular items that pass the filter."""
    placement: Name | None = None
    """Another placement, without its own chain."""
    items: Annotated[list[ItemId], Field(min_length=1, max_length=500)] | None = None
    """A list of items, in this order."""


def _spelt_fallback(value: Any) -> Any:
    if value in ("recent_items", "popular"):
        return {value: True}
    if not isinstance(value, dict | FallbackEntry):
        raise PydanticCustomError("fallback", "must be recent_items, popular, {placement: NAME} or {items: [ID]}")
    return value


def _spelt_context(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


def _spelt_policy(value: Any) -> Any:
    """Return a row with ``else`` as the one without condition that it is."""
    if not isinstance(value, dict) or list(value) != ["else"]:
        return value
    outcome = value["else"]
    return {"mode": outcome} if isinstance(outcome, str) else outcome


class Rules(Section):
    """What a placement does, all of which a variant of an experiment may do otherwise."""

    mode: Mode | None = None
    """Which question to ask; or else `policy`."""
    user_impact: Impact = 0.5
    """Of `related`: the weight of taste, 0 (context only) to 1 (taste only), or an expression over the request."""
    policy: (
        Annotated[
            list[
                Annotated[
                    PolicyEntry,
                    BeforeValidator(_spelt_policy, json_schema_input_type=PolicyEntry | dict[Literal["else"], Any]),
                ]
            ],
            Field(min_length=1, max_length=RULES_MAX),
        ]
        | None
    ) = None
    """Which question to ask when: the first row whose condition holds decides; when none does, nothing is shown."""
    where: Annotated[dict[Word, Any], Field(max_length=RULES_MAX)] = {}
    """Only items whose fields have these values; a list is any of them; `minimum`, `above` and so on bound."""
    filter: Condition | None = None
    """Only items for which this condition over their fields holds."""
    exclude: ExcludeEntry = ExcludeEntry()
    """What is left out whatever its score."""
    boosts: Annotated[list[WeightEntry], Field(max_length=RULES_MAX)] = []
    """Conditions that move candidates up, by weights above 1."""
    demotions: Annotated[list[WeightEntry], Field(max_length=RULES_MAX)] = []
    """Conditions that move candidates down, by weights below 1; 0 takes them out."""
    diversity: Share = 0.0
    """How much unlike each other neighbours are to be: 0 changes nothing, 1 looks at nothing else."""
    caps: Annotated[list[CapEntry], Field(max_length=RULES_MAX)] = []
    """How many items may share a value."""
    pins: Annotated[list[PinEntry], Field(max_length=RULES_MAX)] = []
    """Items at fixed ranks."""
    rotation: RotationEntry | None = None
    """Weights down what the user was shown lately."""
    exploration: Share = 0.0
    """The share of a page for items that came since the snapshot."""
    popularity_weight: Annotated[float, Field(ge=0, le=100), AfterValidator(_finite)] | None = None
    """How much popularity counts, as a multiple of what the snapshot was trained with; that without it."""
    candidates: Annotated[int, Field(ge=1, le=1_000)] = 200
    """How many candidates rules are applied to; at least `limit`."""
    limit: Annotated[int, Field(ge=1, le=500)] = 10
    """How many items to return when the request does not say."""
    max_staleness: Duration | None = None
    """How old what is known of the catalogue may be; the server's own without it."""
    on_unavailable: Literal["fail", "skip_filter", "fallback"] = "fail"
    """What to do when the catalogue does not answer and too little is known for the filter."""
    fallback: Annotated[
        list[
            Annotated[
                FallbackEntry,
                BeforeValidator(
                    _spelt_fallback, json_schema_input_type=FallbackEntry | Literal["recent_items", "popular"]
                ),
            ]
        ],
        Field(max_length=8),
    ] = []
    """Where rows come from, step by step, when too few were found."""
    strict: bool = False
    """Whether an unknown user or item is an error."""


class VariantEntry(Rules):
    """A variant of an experiment: its share, and what it does otherwise than the file says."""

    share: Share
    """Of the units; the variants' add up to 1."""


class ExperimentEntry(Section):
    """Who gets which variant: sticky, by a hash of the experiment's name and the unit."""

    name: Name
    variants: Annotated[dict[Name, VariantEntry], Field(min_length=1, max_length=16)]
    """By name; requests without a unit get the first."""


class PlacementFile(Rules):
    """A placement: one file is one service."""

    description: Annotated[str, StringConstraints(max_length=2_000)] = ""
    """For people."""
    time_zone: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "UTC"
    """Of `request.hour` and `request.weekday`, for example Asia/Seoul."""
    context: Annotated[
        dict[
            Word,
            Annotated[
                ContextEntry,
                BeforeValidator(
                    _spelt_context,
                    json_schema_input_type=ContextEntry | Literal["string", "number", "boolean", "time"],
                ),
            ],
        ],
        Field(max_length=32),
    ] = {}
    """The circumstances that requests may tell, and their types."""
    experiment: ExperimentEntry | None = None
    """Variants that part of the units get."""


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """Return the sections that a value of the type ``annotation`` may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a placement file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **PlacementFile.model_json_schema(mode="validation"),
        "title": "annserve placement",
    }
