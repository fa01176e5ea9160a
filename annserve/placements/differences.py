"""What changes between two sets of placements, key by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annserve.domain.placements import PlacementText
from annserve.placements.problems import Place, PlacementsRefusedError, Problem
from annserve.placements.yaml_text import YamlError, read_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key that is written otherwise; of a placement that came or went, all of it, without a key."""

    placement: str
    key: str
    before: Any
    """None where there was nothing."""
    after: Any
    """None where there is nothing."""


def differences(before: Sequence[PlacementText], after: Sequence[PlacementText]) -> list[Difference]:
    """Return what changes from ``before`` to ``after``, by placement and key; comments and order of keys do not count.

    Raises:
        PlacementsRefusedError: one of them is no YAML.
    """
    old, new = _values(before), _values(after)
    found = []
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            was, is_ = ("there" if name in side else None for side in (old, new))
            found.append(Difference(placement=name, key="", before=was, after=is_))
            continue
        was_flat, is_flat = dict(_flat(old[name], "")), dict(_flat(new[name], ""))
        keys = [key for key in {**was_flat, **is_flat} if was_flat.get(key) != is_flat.get(key)]
        found += [Difference(placement=name, key=key, before=was_flat.get(key), after=is_flat.get(key)) for key in keys]
    return found


def _values(texts: Sequence[PlacementText]) -> Mapping[str, Any]:
    values, problems = {}, []
    for text in texts:
        try:
            values[text.name] = read_yaml(text.text).value
        except YamlError as error:
            place = Place(line=error.line, column=error.column)
            problems.append(Problem(file=text.origin, place=place, text=error.problem))
    if problems:
        raise PlacementsRefusedError(problems)
    return values


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for place, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{place}]")
    else:
        yield path, value
