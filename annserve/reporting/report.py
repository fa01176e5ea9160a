"""The report: what is asked, what it says, and how it is made of events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from zoneinfo import ZoneInfo

from annserve.domain.events import Event, EventType
from annserve.domain.progress import Progress, no_progress
from annserve.reporting.context_shown import nothing_known
from annserve.reporting.declared import Declared
from annserve.reporting.dimensions import SIMILARITIES, Dimension
from annserve.reporting.effects import Crossover, Effect, crossovers, effects
from annserve.reporting.estimates import Interval, Sums, rate_interval
from annserve.reporting.experiments import Assignment, Comparison, assignments, comparisons
from annserve.reporting.exposure import ItemIds, exposure_counts, gini
from annserve.reporting.join import ContextShown, Join, Shown, Windows
from annserve.reporting.tally import Crossing, Tally

DEFAULT_BY: tuple[Crossing, ...] = tuple(
    (dimension,) for dimension in (Dimension.VARIANT, Dimension.MODE, Dimension.HOUR, *SIMILARITIES)
)
_BATCH = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be reported."""

    since_ms: int
    until_ms: int
    """Impressions of ``[since_ms, until_ms)`` count."""
    placements: frozenset[str] = frozenset()
    """Empty for all."""
    by: tuple[Crossing, ...] = DEFAULT_BY
    windows: Windows = field(default_factory=Windows)
    zone: ZoneInfo | None = None
    """Of all hours; None for each placement's own, UTC where that is not known."""
    confidence: float = 0.95
    shares: Mapping[str, float] = field(default_factory=dict)
    """Shares of users by ``experiment/variant``, for experiments that are not to go by what is declared."""
    declared: Mapping[str, Declared] = field(default_factory=dict)
    """By placement; an experiment that nothing is known of is taken to share equally."""

    @property
    def read_ms(self) -> tuple[int, int]:
        """What has to be read: also outcomes after the period, and impressions before it that they may belong to."""
        return self.since_ms - self.windows.later_ms, self.until_ms + self.windows.later_ms + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Impressions of one placement that share values, and what came of them."""

    placement: str
    by: tuple[str, ...]
    values: tuple[str, ...]
    impressions: int
    clicked: int
    converted: int
    """Impressions with a conversion within their window."""
    conversion: Interval
    """The share of them."""
    later: int
    """Impressions without one that are credited a later one."""
    later_conversion: Interval
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """How widely a placement spreads what it shows."""

    placement: str
    users: int
    items_shown: int
    exposures: int
    """Rows of all impressions."""
    catalog_items: int | None
    """Items of the snapshot; None when there was none to compare with."""
    coverage: float | None
    """The share of them that was shown at all."""
    gini: float | None
    """Over `catalog_items`; without them over the items that were shown, which is less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the events say."""

    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    assignments: tuple[Assignment, ...]
    effects: tuple[Effect, ...]
    crossovers: tuple[Crossover, ...]
    exposures: tuple[Exposure, ...]
    unmatched_clicks: int
    """Of no known impression."""
    unmatched_conversions: int
    unusable_values: int
    """Values of conversions that are no numbers, or out of all bounds, and count as 0."""
    versions: Mapping[str, tuple[str, ...]]
    """By placement: those that answered, in order of name, as far as events say."""
    repeated_impressions: int
    """Left out: another one had their `impression_id`."""

    def by(self, *names: str) -> list[Cell]:
        """Return the cells of one crossing of dimensions; of none, the totals."""
        return [cell for cell in self.cells if cell.by == names]


async def report(
    events: AsyncIterator[Sequence[Event]],
    question: Question,
    *,
    catalog: ItemIds | None = None,
    context_shown: ContextShown = nothing_known,
    progress: Progress = no_progress,
) -> Report:
    """Answer ``question`` from ``events``, in order of time: those of `Question.read_ms`.

    Args:
        events: Chunks of an `EventStore`; read once. Memory is that of `Join` and `Tally`, whatever their number.
        question: What is to be reported.
        catalog: The items that could have been shown.
        context_shown: How like what was on screen is to what was shown.
        progress: Told how many events have been read.
    """
    join, tally, read = Join(question.windows, context_shown), _tally(question), 0
    async for chunk in events:
        tally.add(_asked(join.add(chunk), question))
        read += len(chunk)
        progress("events", read, None)
    left = join.finish()
    while batch := list(islice(left, _BATCH)):
        tally.add(_asked(batch, question))
    return Report(
        cells=_cells(tally, question.confidence),
        comparisons=comparisons(tally, question.confidence),
        assignments=assignments(tally, question.shares, question.declared),
        effects=effects(tally, question.confidence),
        crossovers=crossovers(tally, question.confidence),
        exposures=_exposures(tally, catalog),
        unmatched_clicks=join.unmatched[EventType.CLICK],
        unmatched_conversions=join.unmatched[EventType.CONVERSION],
        unusable_values=join.unusable_values,
        versions={placement: tuple(sorted(versions)) for placement, versions in sorted(tally.versions.items())},
        repeated_impressions=join.repeated_count,
    )


def _tally(question: Question) -> Tally:
    if question.zone is not None:
        return Tally(question.by, question.zone)
    zones = {placement: declared.zone for placement, declared in question.declared.items()}
    return Tally(question.by, ZoneInfo("UTC"), zones)


def _asked(finished: Iterable[Shown], question: Question) -> list[Shown]:
    return [
        shown
        for shown in finished
        if question.since_ms <= shown.time_ms < question.until_ms
        and (not question.placements or shown.answerer.placement in question.placements)
    ]


def _cells(tally: Tally, confidence: float) -> tuple[Cell, ...]:
    return tuple(_cell(by, key, sums.of(key), confidence) for by, sums in tally.cells.items() for key in sorted(sums))


def _cell(by: Crossing, key: tuple[str, ...], sums: Sums, confidence: float) -> Cell:
    impressions, clicked, converted, later, value = sums.sum(axis=0).tolist()
    conversion = rate_interval(sums[:, 0], sums[:, 2], confidence)
    later_conversion = rate_interval(sums[:, 0], sums[:, 3], confidence)
    assert conversion is not None  # noqa: S101 - A cell is made by its first impression.
    assert later_conversion is not None  # noqa: S101
    return Cell(
        placement=key[0],
        by=tuple(dimension.value for dimension in by),
        values=key[1:],
        impressions=round(impressions),
        clicked=round(clicked),
        converted=round(converted),
        conversion=conversion,
        later=round(later),
        later_conversion=later_conversion,
        value=value,
    )


def _exposures(tally: Tally, catalog: ItemIds | None) -> tuple[Exposure, ...]:
    found = []
    for placement, shown in sorted(tally.exposures.items()):
        counts = exposure_counts(shown, catalog)
        found.append(
            Exposure(
                placement=placement,
                users=tally.users_of(placement),
                items_shown=len(shown),
                exposures=shown.total(),
                catalog_items=None if catalog is None else len(catalog),
                coverage=None if catalog is None or not len(counts) else float((counts > 0).mean()),
                gini=gini(counts),
            )
        )
    return tuple(found)
