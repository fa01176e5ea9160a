"""Whether conversion depends on similarity, whether differently by mode, and where the better mode changes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from annserve.reporting.estimates import Estimate, Interval, line
from annserve.reporting.tally import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What similarity does to the conversion rate of one mode, as a straight line."""

    placement: str
    similarity: str
    mode: str
    height: float
    """The line's rate at similarity 0."""
    slope: Interval | None
    """By what the rate changes from similarity 0 to 1."""
    p_value: float | None
    """Of a slope of 0, two-sided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossover:
    """How the effect differs between two modes: whether it matters which one answers where."""

    placement: str
    similarity: str
    mode: str
    other_mode: str
    slope_difference: Interval | None
    """The slope of `mode` less that of `other_mode`."""
    p_value: float | None
    """Of no difference, two-sided."""
    crossing: Interval | None
    """The similarity at which both convert alike; None where the slopes do not differ by the same confidence."""


def effects(tally: Tally, confidence: float) -> tuple[Effect, ...]:
    """Lay a line through conversion over similarity, for each placement, similarity and mode that varies in it."""
    return tuple(
        Effect(
            placement=placement,
            similarity=similarity,
            mode=mode,
            height=height.value,
            slope=slope.interval(confidence),
            p_value=slope.p_value(),
        )
        for (placement, similarity), modes in _lines(tally).items()
        for mode, (height, slope) in modes.items()
    )


def crossovers(tally: Tally, confidence: float) -> tuple[Crossover, ...]:
    """Compare the lines of each two modes of a placement."""
    found = []
    for (placement, similarity), modes in _lines(tally).items():
        for mode, other_mode in combinations(modes, 2):
            heights, slopes = (one.minus(other) for one, other in zip(modes[mode], modes[other_mode], strict=True))
            p_value = slopes.p_value()
            found.append(
                Crossover(
                    placement=placement,
                    similarity=similarity,
                    mode=mode,
                    other_mode=other_mode,
                    slope_difference=slopes.interval(confidence),
                    p_value=p_value,
                    crossing=_crossing(heights, slopes).interval(confidence)
                    if p_value is not None and p_value < 1 - confidence
                    else None,
                )
            )
    return tuple(found)


def _lines(tally: Tally) -> dict[tuple[str, str], dict[str, tuple[Estimate, Estimate]]]:
    found: dict[tuple[str, str], dict[str, tuple[Estimate, Estimate]]] = {}
    for key in sorted(tally.lines):
        estimates = line(tally.lines.of(key))
        if estimates is not None:
            found.setdefault((key.placement, key.similarity.value), {})[key.mode] = estimates
    return found


def _crossing(heights: Estimate, slopes: Estimate) -> Estimate:
    """Return where two lines meet, by the differences of their heights and slopes (delta method)."""
    meeting = -heights.value / slopes.value
    return Estimate(
        value=meeting,
        influence=-(heights.influence + meeting * slopes.influence) / slopes.value,
        group_count=min(heights.group_count, slopes.group_count),
    )
