"""``annserve report``: what came of what was shown."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from annserve.cli.catalog_source import CatalogOption, CatalogSource, ConfigOption, catalog_source
from annserve.cli.event_source import EventsOption, opened_events
from annserve.cli.options import SnapshotsOption, open_store, settings
from annserve.cli.output import JsonOption, console, print_json, print_rows, progress_bars, say
from annserve.cli.placement_source import placement_texts
from annserve.domain.errors import InputError

if TYPE_CHECKING:
    from annserve.reporting.declared import Declared
    from annserve.reporting.report import Question, Report
    from annserve.reporting.tally import Crossing

app = typer.Typer(help="What came of what was shown.", no_args_is_help=True)

_MINUTE_MS = 60_000
_DAY_MS = 86_400_000


@app.callback()
def _group() -> None:
    """Keep `placements` a command of its own while it is the only one."""


@app.command("placements")
def placements_command(
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The first impressions, ISO 8601, UTC unless it says. 28 days ago."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Impressions before this. Now, less the outcome window.")
    ] = None,
    placement: Annotated[list[str] | None, typer.Option(help="Only this placement; may be repeated.")] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Of version, variant, mode, hour, user_context, context_shown: a table for each; + crosses them.",
        ),
    ] = "variant,mode,hour,user_context,context_shown",
    share: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPERIMENT/VARIANT=SHARE",
            help="A share of an experiment's users, for what its placement says; may be repeated. "
            "Without either shares count as equal.",
        ),
    ] = None,
    outcome_minutes: Annotated[float, typer.Option(min=0.1, help="How long outcomes count to the impression.")] = 30.0,
    later_days: Annotated[
        float, typer.Option(min=0.0, help="How long conversions after that are credited apart; memory grows with it.")
    ] = 7.0,
    time_zone: Annotated[
        str | None, typer.Option(help="Of all hours: an IANA name. Each placement's own, or UTC.", show_default=False)
    ] = None,
    placements: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER|FILE",
            help="Placements, whose time zones and shares count. [env: ANNSERVE_PLACEMENTS, "
            "ANNSERVE_PLACEMENTS_FROM_MONGODB]",
            show_default=False,
        ),
    ] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")] = 0.95,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png|.svg|.html", help="Draw conversion against similarity; needs the extra plots."),
    ] = None,
    events: EventsOption = None,
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    snapshots: SnapshotsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report impressions and conversion by placement, with intervals that allow for users who come back.

    With a live snapshot also coverage, and conversion by how like what was on screen is to what was shown.
    """
    from annserve.reporting.dimensions import zone_named
    from annserve.reporting.join import Windows
    from annserve.reporting.report import Question

    if plot is not None:
        if find_spec("matplotlib") is None:
            raise InputError("--plot needs matplotlib: pip install 'annserve[plots]'")
        from annserve.reporting.plots import check_path

        check_path(plot)
    windows = Windows(
        outcome_ms=round(outcome_minutes * _MINUTE_MS),
        later_ms=max(round(later_days * _DAY_MS), round(outcome_minutes * _MINUTE_MS)),
    )
    now_ms = round(time.time() * 1_000)
    until_ms = _time_ms("--until", until) if until else now_ms - windows.outcome_ms
    source = catalog_source(catalog, catalog_config)
    declared = _declared(placements, source)
    question = Question(
        since_ms=_time_ms("--since", since) if since else until_ms - 28 * _DAY_MS,
        until_ms=until_ms,
        placements=frozenset(placement or ()),
        by=_crossings(by),
        windows=windows,
        zone=None if time_zone is None else zone_named(time_zone),
        confidence=confidence,
        shares=_shares(share or ()),
        declared=declared,
    )
    if question.since_ms >= question.until_ms:
        raise InputError("--since must be before --until")
    made = asyncio.run(_report(question, source, events, snapshots))
    if as_json:
        print_json({"since": _iso(question.since_ms), "until": _iso(question.until_ms), **asdict(made)})
    else:
        _print(made, question)
    _tell_versions(made, declared)
    if question.until_ms > now_ms - windows.outcome_ms:
        say("the latest impressions are younger than the outcome window: their conversion will still rise")
    if plot is not None:
        from annserve.reporting.plots import undrawn, write_plot

        # Last, because there may be nothing to draw: the report is there all the same.
        write_plot(made, plot, f"Placements, {_period(question)}", confidence)
        say(f"drawn: {plot}")
        if left := undrawn(made):
            say(f"not drawn, for no impression has a similarity to what was on screen: {', '.join(left)}")


def _declared(path: Path | None, source: CatalogSource | None) -> Mapping[str, Declared]:
    from annserve.reporting.declared import declared

    found, problems = declared(placement_texts(settings(), source, path))
    for problem in problems:
        say(f"{problem}: the report goes by UTC and equal shares there")
    return found


def _tell_versions(made: Report, declared: Mapping[str, Declared]) -> None:
    for placement, versions in made.versions.items():
        known = declared.get(placement)
        others = [version for version in versions if known is not None and version != known.version]
        if others:
            say(
                f"{placement}: {len(others)} other version{'s' if len(others) > 1 else ''} than the file's answered in "
                f"this period ({', '.join(others[:5])}): its time zone and shares may have been others then"
            )


async def _report(
    question: Question, source: CatalogSource | None, events: Path | None, snapshots: Path | None
) -> Report:
    from annserve.reporting.context_shown import ContextShown, nothing_known
    from annserve.reporting.report import report
    from annserve.snapshot import layout
    from annserve.snapshot.files import map_array
    from annserve.snapshot.ids import IdIndex

    store, items, context_shown = open_store(snapshots), None, nothing_known
    snapshot_id = store.current_id()
    if snapshot_id is None:
        say(f"no live snapshot in {store.root}: neither coverage nor similarity of context and shown")
    else:
        # Ids and vectors are all that is needed: no graph is loaded.
        store.verify(snapshot_id)
        items = IdIndex(store.path(snapshot_id) / layout.ITEM_IDS)
        context_shown = ContextShown(items, map_array(store.path(snapshot_id) / layout.ITEM_VECTORS))
    with progress_bars() as progress:
        async with opened_events(source, events) as kept:
            read = kept.read(*question.read_ms)
            return await report(read, question, catalog=items, context_shown=context_shown, progress=progress)


def _print(report: Report, question: Question) -> None:
    from annserve.reporting.wording import assignment_text, crossover_text, p_text, percent

    if not report.cells:
        say(f"no impressions of placements in {_period(question)}")
        return
    level = f"{question.confidence:.0%}"
    for by in ((), *question.by):
        names = tuple(dimension.value for dimension in by)
        rows = [
            {
                "placement": cell.placement,
                **dict(zip(names, cell.values, strict=True)),
                "impressions": cell.impressions,
                "clicked": cell.clicked,
                "converted": cell.converted,
                f"conversion %, {level}": percent(cell.conversion),
                "later": cell.later,
                f"later %, {level}": percent(cell.later_conversion),
                "value": cell.value,
            }
            for cell in report.by(*names)
        ]
        _table(f"by {' and '.join(names)}" if names else _period(question), rows)
    _table(
        "variants beside their control",
        [
            {
                "placement": one.placement,
                "experiment": one.experiment,
                "variant": one.variant,
                "control": one.control,
                f"difference in points, {level}": percent(one.difference),
                f"lift %, {level}": percent(one.lift),
                "p": p_text(one.p_value),
            }
            for one in report.comparisons
        ],
    )
    _table(
        "conversion along similarity",
        [
            {
                "placement": one.placement,
                "similarity": one.similarity,
                "mode": one.mode,
                f"points from 0 to 1, {level}": percent(one.slope),
                "p": p_text(one.p_value),
            }
            for one in report.effects
        ],
    )
    _table(
        "spread over the catalogue",
        [
            {
                "placement": one.placement,
                "users": one.users,
                "items shown": one.items_shown,
                "of": one.catalog_items,
                "coverage %": None if one.coverage is None else 100 * one.coverage,
                "gini": one.gini,
            }
            for one in report.exposures
        ],
    )
    for crossover in report.crossovers:
        say(f"{crossover.placement}, {crossover.similarity}: {crossover_text(crossover)}")
    for assignment in report.assignments:
        say(f"{assignment.placement}: {assignment_text(assignment)}")
    if report.comparisons:
        say(
            "p-values hold for one look, at an end that was fixed beforehand: who looks daily and stops at p < 0.05 "
            "finds differences where there are none"
        )
    say(
        f"of no known impression: {report.unmatched_conversions:,} conversions, {report.unmatched_clicks:,} clicks; "
        f"values that count as 0, since they are none: {report.unusable_values:,}; "
        f"impressions left out for an id that another has: {report.repeated_impressions:,}"
    )


def _table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    if rows:
        print_rows(rows, as_json=False, title=title)
        console.print()


def _crossings(text: str) -> tuple[Crossing, ...]:
    from annserve.reporting.dimensions import Dimension

    known = {dimension.value: dimension for dimension in Dimension}
    wanted = [names.strip().split("+") for names in text.split(",") if names.strip()]
    for name in chain.from_iterable(wanted):
        if name not in known:
            raise InputError(f"--by {name!r}: must be of {', '.join(known)}", by=name)
    return tuple(tuple(known[name] for name in names) for names in wanted)


def _shares(options: Sequence[str]) -> dict[str, float]:
    shares = {}
    for option in options:
        arm, _, number = option.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = 0.0
        if "/" not in arm or not 0 < share < math.inf:
            raise InputError(f"--share {option!r}: must be EXPERIMENT/VARIANT=SHARE, the share above 0", share=option)
        shares[arm] = share
    return shares


def _time_ms(name: str, text: str) -> int:
    try:
        time_ = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{name} {text!r}: must be a date or time of ISO 8601, as in 2026-03-01T12:00Z") from None
    return round((time_ if time_.tzinfo else time_.replace(tzinfo=UTC)).timestamp() * 1_000)


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1e3, UTC).isoformat(timespec="seconds")


def _period(question: Question) -> str:
    since, until = (_iso(time_ms).removesuffix("+00:00") for time_ms in (question.since_ms, question.until_ms))
    return f"{since.removesuffix('T00:00:00')} to {until.removesuffix('T00:00:00')} UTC"
