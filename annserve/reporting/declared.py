"""What placements' files say that a report needs: their time zone, and the shares of their experiment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from annserve.domain.errors import InputError
from annserve.domain.placements import PlacementText
from annserve.placements.compiling import read_placement
from annserve.placements.placement import version_of
from annserve.placements.problems import Problem
from annserve.reporting.dimensions import zone_named


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What the file of one placement says now; it may have said something else when an impression was made."""

    version: str
    zone: ZoneInfo
    """Of its hours."""
    experiment: str = ""
    shares: Mapping[str, float]
    """Of the experiment's units, 0 to 1, by variant."""


def declared(texts: Iterable[PlacementText]) -> tuple[Mapping[str, Declared], Sequence[Problem]]:
    """Return what ``texts`` declare, by placement, and what is wrong with those that cannot be read.

    No fields are needed: expressions are not looked at.
    """
    found: dict[str, Declared] = {}
    problems: list[Problem] = []
    for text in texts:
        file, wrong = read_placement(text)
        problems += wrong
        if file is None:
            continue
        try:
            zone = zone_named(file.time_zone)
        except InputError as error:
            problems.append(Problem(file=text.origin, text=error.message))
            continue
        experiment = file.experiment
        found[text.name] = Declared(
            version=version_of(text.text),
            zone=zone,
            experiment="" if experiment is None else experiment.name,
            shares={} if experiment is None else {name: one.share for name, one in experiment.variants.items()},
        )
    return found, problems
