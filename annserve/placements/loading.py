"""Many placement files, made into one set: all of them, or none and everything that is wrong with them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from annserve.domain.catalog import Schema
from annserve.domain.placements import PlacementText
from annserve.placements.compiling import compile_placement
from annserve.placements.file import NAME_PATTERN
from annserve.placements.placement import CompiledPlacement, version_of
from annserve.placements.problems import PlacementsRefusedError, Problem
from annserve.placements.recipe import PlacementSet

_VERSION_BITS = 53
"""What a float holds, as some readers of JSON make of numbers."""


def compiled_set(sources: Iterable[PlacementText], schema: Schema, known: PlacementSet | None = None) -> PlacementSet:
    """Return the placements that ``sources`` describe.

    Args:
        sources: Each a placement.
        schema: The fields that they may name.
        known: Placements by the same schema: those among ``sources`` are not compiled again.

    Raises:
        PlacementsRefusedError: something is wrong with one of them, or with how they call each other.
    """
    placements, problems = compiled(sources, schema, known)
    if problems:
        raise PlacementsRefusedError(problems)
    return PlacementSet(placements=placements, version=_version(placements.values()))


def compiled(
    sources: Iterable[PlacementText], schema: Schema, known: PlacementSet | None = None
) -> tuple[Mapping[str, CompiledPlacement], Sequence[Problem]]:
    """Return the placements that are right, by name, and all that is wrong with the others."""
    placements: dict[str, CompiledPlacement] = {}
    origins: dict[str, str] = {}
    problems: list[Problem] = []
    for source in sources:
        problems += _name_problems(source, origins)
        origins[source.name] = source.origin
        placement = _known(source, known)
        if placement is None:
            placement, found = compile_placement(source, schema)
            problems += found
        if placement is not None:
            placements[source.name] = placement
    problems += _call_problems(placements, origins)
    return placements, problems


def _known(source: PlacementText, known: PlacementSet | None) -> CompiledPlacement | None:
    """Return the placement that ``source`` is already, if it is."""
    found = None if known is None else known.placements.get(source.name)
    if isinstance(found, CompiledPlacement) and found.version == version_of(source.text):
        return found
    return None


def _name_problems(source: PlacementText, origins: Mapping[str, str]) -> Iterator[Problem]:
    if not re.fullmatch(NAME_PATTERN, source.name):
        yield _of_file(
            source.origin, "a placement is called as its file, and that is 1 to 64 characters out of a-z 0-9 _ -"
        )
    if source.origin.endswith(".yml"):
        yield _of_file(source.origin, f"call it {source.name}.yaml")
    if source.name in origins:
        yield _of_file(source.origin, f"{origins[source.name]} is the placement {source.name!r} already")


def _call_problems(placements: Mapping[str, CompiledPlacement], origins: Mapping[str, str]) -> Iterator[Problem]:
    """Return what is wrong with how placements fall back to each other."""
    calls = {name: tuple(placement.calls) for name, placement in placements.items()}
    for name, placement in placements.items():
        for called, place in placement.calls.items():
            if called not in origins:
                text = f"there is no placement {called!r}"
                yield Problem(file=origins[name], place=place, text=text)
            elif (circle := _circle(name, called, calls)) is not None:
                yield Problem(file=origins[name], place=place, text=f"falls back in a circle: {' > '.join(circle)}")


def _circle(name: str, called: str, calls: Mapping[str, Sequence[str]]) -> list[str] | None:
    """Return how ``name`` comes back to itself by ``called``; None if it does not."""
    ways = {called: [name, called]}
    waiting = [called]
    while waiting:
        current = waiting.pop()
        if current == name:
            return ways[current]
        for other in calls.get(current, ()):
            if other not in ways:
                ways[other] = [*ways[current], other]
                waiting.append(other)
    return None


def _version(placements: Iterable[CompiledPlacement]) -> int:
    content = "\n".join(sorted(f"{placement.name} {placement.version}" for placement in placements))
    digest = hashlib.blake2b(content.encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 64 - _VERSION_BITS


def _of_file(origin: str, text: str) -> Problem:
    return Problem(file=origin, text=text)
