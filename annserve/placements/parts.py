"""What a mixed condition is made of: a tree of "all" and "any" over parts that are decided in different ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from annserve.domain.filter import Field, Filter

if TYPE_CHECKING:
    from annserve.placements.recipe import Expression
    from annserve.placements.variables import Variable


@dataclass(frozen=True, slots=True, kw_only=True)
class OfItems:
    """Holds for the items that pass a canonical filter: bitmaps tell."""

    filter: Filter


@dataclass(frozen=True, slots=True, kw_only=True)
class OfRequest:
    """Holds when a condition over the request alone comes to ``wanted``: evaluated once."""

    expression: Expression
    wanted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Holds where comparing something of the candidate with what all of them share comes to ``wanted``."""

    left: Variable
    """Of the candidate: a number, a text or a time."""
    operator: str
    """One of ``< <= > >= == !=``."""
    right: Variable | None = None
    """Of the request."""
    constant: object = None
    """What counts without `right`."""
    wanted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OfEach:
    """Holds for the candidates for which a condition comes to ``wanted``: evaluated for each of them."""

    expression: Expression
    fields: tuple[Field, ...]
    """The item fields that it reads."""
    wanted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AllOf:
    """Holds where every one of ``parts`` does, of which there are at least two; those that cost least come first."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOf:
    """Holds where one of ``parts`` does, of which there are at least two; those that cost least come first."""

    parts: tuple[Part, ...]


Single: TypeAlias = OfItems | OfRequest | Compared | OfEach
Part: TypeAlias = Single | AllOf | AnyOf


def singles_of(part: Part) -> list[Single]:
    """Return what ``part`` is made of, in order."""
    if isinstance(part, AllOf | AnyOf):
        return [single for inner in part.parts for single in singles_of(inner)]
    return [part]


def fields_of(part: Part) -> tuple[Field, ...]:
    """Return the fields of candidates that have to be read, by name; bitmaps need none."""
    found: dict[str, Field] = {}
    for single in singles_of(part):
        if isinstance(single, OfEach):
            found |= {field.name: field for field in single.fields}
        elif isinstance(single, Compared) and single.left.field is not None:
            found[single.left.field.name] = single.left.field
    return tuple(found[name] for name in sorted(found))
