"""A month of impressions and outcomes whose truth is known: what a report is held against.

Two placements show something to the same users. ``popup`` has an experiment: half of the users get taste, half context,
and context converts better the more alike taste and context are, taste the less. ``home`` has one too, and there
neither similarity nor the mode does anything.

Users are of three kinds: who comes more often converts more often; each has a rate and a strength of effect of her own,
and similarities that are like each other. So impressions are anything but independent, and the truth is still exact.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from annserve.domain.events import Event, EventType
from annserve.domain.query import Mode, PlacementUse
from annserve.reporting.dimensions import BANDS
from annserve.reporting.estimates import Interval
from annserve.reporting.report import Question, Report, report

START_MS = 1_764_547_200_000
DAY_MS = 86_400_000
MONTH_MS = 30 * DAY_MS

KIND_SHARES = np.array([0.50, 0.35, 0.15])
KIND_VISITS = np.array([3.0, 8.0, 25.0])
KIND_RATES = np.array([0.03, 0.06, 0.10])
LATER_RATE = 0.04
MODES = {"taste": Mode.PERSONALIZE, "context": Mode.RELATED}
HEIGHTS = {"taste": 0.10, "context": 0.02}
"""What the mode adds to a user's rate at similarity 0, in ``popup``."""
SLOPES = {"taste": -0.10, "context": 0.14}
CONFIDENCE = 0.95

BASE_RATE = float((KIND_SHARES * KIND_VISITS) @ KIND_RATES / (KIND_SHARES @ KIND_VISITS))
"""The mean of users' own rates over impressions."""
RATES = {variant: BASE_RATE + HEIGHTS[variant] + SLOPES[variant] / 2 for variant in MODES}
"""Conversion by variant: similarities are 0.5 in the mean."""
CROSSING = (HEIGHTS["taste"] - HEIGHTS["context"]) / (SLOPES["context"] - SLOPES["taste"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visit:
    user_id: str
    variant: str
    rate: float
    strength: float
    similarity: float
    time_ms: int
    number: int


def simulated_month(seed: int, users: int) -> list[Event]:
    """Return the events of a month in order of time: some 16 impressions a user."""
    rng = np.random.default_rng(seed)
    events = [event for visit in _visits(rng, users) for event in _of_visit(rng, visit)]
    return sorted(events, key=lambda event: event.time_ms)


async def chunks(events: Sequence[Event], size: int = 1_000) -> AsyncIterator[Sequence[Event]]:
    """Yield ``events`` as an event store does."""
    for start in range(0, len(events), size):
        yield events[start : start + size]


def month_question() -> Question:
    """Return the question that `simulated_month` is an answer to."""
    return Question(since_ms=START_MS, until_ms=START_MS + MONTH_MS, confidence=CONFIDENCE)


async def reported_month(seed: int, users: int) -> Report:
    """Return the report of a month."""
    return await report(chunks(simulated_month(seed, users)), month_question())


def intervals(of: Report) -> Iterator[tuple[str, Interval | None, float]]:
    """Yield a name, the interval and the truth of everything that the report estimates of the month."""
    slopes = {effect.mode: effect.slope for effect in of.effects if effect.placement == "popup"}
    for variant, mode in MODES.items():
        yield f"slope of {variant}", slopes[mode.value], SLOPES[variant]
    both = next(crossover for crossover in of.crossovers if crossover.placement == "popup")
    yield "difference of slopes", both.slope_difference, SLOPES["taste"] - SLOPES["context"]
    yield "crossing", both.crossing, CROSSING
    for cell in of.by("variant"):
        if cell.placement == "popup":
            variant = cell.values[0].removeprefix("modes/")
            yield f"conversion of {variant}", cell.conversion, RATES[variant]
            yield f"later conversion of {variant}", cell.later_conversion, (1 - RATES[variant]) * LATER_RATE
    compared = next(comparison for comparison in of.comparisons if comparison.placement == "popup")
    yield "difference of variants", compared.difference, RATES["taste"] - RATES["context"]
    yield "lift", compared.lift, RATES["taste"] / RATES["context"] - 1
    means = _mean_similarities()
    for cell in of.by("mode", "user_context"):
        if cell.placement == "popup":
            variant = next(name for name, mode in MODES.items() if mode.value == cell.values[0])
            similarity = means[round(float(cell.values[1].split()[0]) * BANDS)]
            yield "conversion by band", cell.conversion, BASE_RATE + HEIGHTS[variant] + SLOPES[variant] * similarity
    nothing = next(crossover for crossover in of.crossovers if crossover.placement == "home")
    yield "difference of slopes where there is none", nothing.slope_difference, 0.0


def covers(interval: Interval | None, truth: float) -> bool:
    """Return whether ``truth`` is within; a missing interval has missed it."""
    return interval is not None and interval.low <= truth <= interval.high


def _visits(rng: np.random.Generator, users: int) -> Iterator[_Visit]:
    kinds = rng.choice(len(KIND_SHARES), users, p=KIND_SHARES)
    for user, kind in enumerate(kinds):
        rate = KIND_RATES[kind] * rng.uniform(0.5, 1.5)
        strength, taste = rng.uniform(0.5, 1.5), rng.random()
        variant = "taste" if rng.random() < 0.5 else "context"
        count = 1 + rng.poisson(KIND_VISITS[kind] - 1)
        times = rng.integers(0, MONTH_MS, count)
        for number, (time_ms, own) in enumerate(zip(times.tolist(), rng.random(count).tolist(), strict=True)):
            yield _Visit(
                user_id=f"user-{user}",
                variant=variant,
                rate=rate,
                strength=strength,
                # Half of it is the user's, half the moment's: its distribution is a triangle over 0 to 1.
                similarity=(taste + own) / 2,
                time_ms=START_MS + time_ms,
                number=number,
            )


def _of_visit(rng: np.random.Generator, visit: _Visit) -> Iterator[Event]:
    effect = HEIGHTS[visit.variant] + SLOPES[visit.variant] * visit.similarity
    for placement, added in (("popup", visit.strength * effect), ("home", 0.0)):
        id_ = f"{placement}/{visit.user_id}/{visit.number}"
        items = tuple(f"item-{item}" for item in rng.integers(0, 1_000, 4).tolist())
        yield Event(
            event_id=id_,
            type=EventType.IMPRESSION,
            user_id=visit.user_id,
            item_ids=items,
            time_ms=visit.time_ms,
            attribution_token=f"token of {id_}",
            impression_id=id_,
            placement=PlacementUse(
                name=placement,
                version="0123456789abcdef",
                experiment="modes",
                variant=visit.variant,
                mode=MODES[visit.variant],
                user_context_similarity=visit.similarity,
            ),
        )
        if rng.random() < visit.rate + added:
            yield _conversion(visit, id_, items, visit.time_ms + int(rng.integers(1, 30 * 60_000)), rng.random() < 0.5)
        elif rng.random() < LATER_RATE:
            yield _conversion(visit, id_, items, visit.time_ms + int(rng.integers(DAY_MS, 5 * DAY_MS)), is_named=True)


def _conversion(visit: _Visit, id_: str, items: tuple[str, ...], time_ms: int, is_named: bool) -> Event:
    return Event(
        event_id=f"conversion of {id_}",
        type=EventType.CONVERSION,
        user_id=visit.user_id,
        item_ids=items[:1],
        time_ms=time_ms,
        impression_id=id_ if is_named else "",
        attribution_token="" if is_named else f"token of {id_}",
        value=1.0,
    )


def _mean_similarities() -> list[float]:
    """Return the mean similarity within each band, of a triangle over 0 to 1 (midpoints of 100 strips a band)."""
    middles = (np.arange(BANDS * 100) + 0.5) / (BANDS * 100)
    heights = np.minimum(middles, 1 - middles)
    bands = (heights * middles).reshape(BANDS, 100).sum(axis=1) / heights.reshape(BANDS, 100).sum(axis=1)
    return [float(mean) for mean in bands]
