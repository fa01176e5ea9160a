"""Conversion against similarity, drawn by matplotlib (the extra ``plots``): PNG, SVG, or a page that needs no other."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from annserve.domain.errors import InputError
from annserve.reporting.dimensions import BANDS, SIMILARITIES, UNKNOWN, Dimension
from annserve.reporting.report import Cell, Report
from annserve.reporting.wording import crossover_text

SUFFIXES = (".png", ".svg", ".html")

_COLOURS = {"personalize": "#d1495b", "related": "#1f6f8b", "similar": "#5b8c5a", "placement": "#8d6a9f"}
"""Told apart by people who see fewer colours, and in grey."""
_TITLES = {
    Dimension.USER_CONTEXT: "taste and what was on screen",
    Dimension.CONTEXT_SHOWN: "what was on screen and what was shown",
}
_INK, _PALE = "#2b2d33", "#9a9ea8"
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _PALE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e7ea",
    "axes.axisbelow": True,
    "figure.constrained_layout.w_pad": 0.15,
    "figure.constrained_layout.h_pad": 0.12,
    "svg.fonttype": "none",
}
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: {ink} }}
svg {{ width: 100%; height: auto }}
</style>
<h1>{title}</h1>
{figure}
</html>
"""


def check_path(path: Path) -> None:
    """Refuse a file that would be none of `SUFFIXES`.

    Raises:
        InputError: its name ends otherwise.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"plot {path}: its name must end in {', '.join(SUFFIXES)}", path=path)


def write_plot(report: Report, path: Path, title: str, confidence: float) -> None:
    """Draw conversion by mode against both similarities, a row of panels for each placement, and write it to ``path``.

    Raises:
        InputError: the suffix is none of `SUFFIXES`, or no impression has a similarity.
    """
    check_path(path)
    with mpl.rc_context(_STYLE):
        figure = _figure(report, title if path.suffix != ".html" else "", confidence)
        if path.suffix == ".html":
            drawn = io.StringIO()
            figure.savefig(drawn, format="svg")
            svg = drawn.getvalue()
            page = _PAGE.format(title=html.escape(title), figure=svg[svg.index("<svg") :], ink=_INK)
            path.write_text(page, encoding="utf-8")
        else:
            figure.savefig(path, dpi=160)


def undrawn(report: Report) -> list[str]:
    """Return the placements that have no panel: no impression of theirs has a similarity."""
    placements = sorted({cell.placement for cell in report.cells})
    return [one for one in placements if not any(_cells(report, one, dimension) for dimension in SIMILARITIES)]


def _figure(report: Report, title: str, confidence: float) -> Figure:
    panels = {
        (placement, dimension): cells
        for dimension in SIMILARITIES
        for placement in dict.fromkeys(cell.placement for cell in report.cells)
        if (cells := _cells(report, placement, dimension))
    }
    placements = sorted({placement for placement, _ in panels})
    dimensions = [dimension for dimension in SIMILARITIES if any(one is dimension for _, one in panels)]
    if not panels:
        if not report.cells:
            raise InputError("nothing to plot: there are no impressions in the period")
        raise InputError(
            "nothing to plot: conversion is drawn along similarity to what was on screen, and no impression of the "
            "period has one; those without items on screen, as of a home page in mode personalize, cannot be drawn"
        )
    figure = Figure(figsize=(7.2 * len(dimensions) + 0.6, 4.9 * len(placements) + 0.6), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
    modes = sorted({mode for drawn in panels.values() for mode in _modes(drawn)})
    keys = [Line2D([], [], color=_COLOURS[mode], marker="o", ms=5.5, lw=2, label=mode) for mode in modes]
    figure.legend(handles=keys, loc="outside upper right", frameon=False, ncols=len(keys))
    rows = figure.subfigures(len(placements), len(dimensions), squeeze=False)
    for row, placement in zip(rows, placements, strict=True):
        for place, dimension in zip(row, dimensions, strict=True):
            drawn = panels.get((placement, dimension))
            if drawn is not None:
                upper, lower = place.subplots(2, 1, sharex=True, height_ratios=(4, 1))
                _draw_conversion(upper, drawn, report, dimension, confidence)
                _draw_impressions(lower, drawn, dimension)
    return figure


def _draw_conversion(
    axes: Axes, cells: Sequence[Cell], report: Report, dimension: Dimension, confidence: float
) -> None:
    placement, modes = cells[0].placement, _modes(cells)
    lines = {
        effect.mode: effect
        for effect in report.effects
        if (effect.placement, effect.similarity) == (placement, dimension.value)
    }
    for mode in modes:
        of_mode = [cell for cell in cells if cell.values[0] == mode]
        middles = [_middle(cell) for cell in of_mode]
        x = [middle + _shift(mode, modes) for middle in middles]
        shares = [cell.conversion.value for cell in of_mode]
        below = [cell.conversion.value - cell.conversion.low for cell in of_mode]
        above = [cell.conversion.high - cell.conversion.value for cell in of_mode]
        axes.errorbar(
            x, shares, yerr=[below, above], fmt="o", ms=5.5, color=_COLOURS[mode], elinewidth=1.6, alpha=0.9, zorder=3
        )
        if (line := lines.get(mode)) and line.slope:
            ends = [min(middles) - 0.5 / BANDS, max(middles) + 0.5 / BANDS]
            heights = [line.height + line.slope.value * end for end in ends]
            axes.plot(ends, heights, color=_COLOURS[mode], lw=2, alpha=0.55, zorder=2)
    # Whiskers of bands with next to no impressions may leave the panel: they would flatten all others.
    busy = sum(cell.impressions for cell in cells) / 200
    top = max((cell.conversion.high for cell in cells if cell.impressions >= busy), default=1.0)
    axes.set_ylim(0, min(1.0, top * 1.12) or 1.0)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.set_ylabel(f"conversion, {confidence:.0%} intervals")
    axes.set_title(f"{placement}: {_TITLES[dimension]}", loc="left", fontweight="bold", pad=24)
    said = [
        crossover_text(crossover)
        for crossover in report.crossovers
        if (crossover.placement, crossover.similarity) == (placement, dimension.value)
    ]
    axes.text(0, 1.02, "\n".join(said[:1]), transform=axes.transAxes, fontsize=9, color=_INK, va="bottom")


def _draw_impressions(axes: Axes, cells: Sequence[Cell], dimension: Dimension) -> None:
    modes = _modes(cells)
    width = 0.8 / BANDS / len(modes)
    for number, mode in enumerate(modes):
        of_mode = [cell for cell in cells if cell.values[0] == mode]
        shift = (number - (len(modes) - 1) / 2) * width
        places = [_middle(cell) + shift for cell in of_mode]
        axes.bar(places, [cell.impressions for cell in of_mode], width=width, color=_COLOURS[mode], alpha=0.55)
    axes.set_ylabel("impressions")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(f"cosine of {_TITLES[dimension]}")
    axes.set_xlim(-0.1 if any(_middle(cell) < 0 for cell in cells) else 0, 1)


def _cells(report: Report, placement: str, dimension: Dimension) -> list[Cell]:
    """Return the cells of modes and known bands."""
    return [
        cell
        for cell in report.by(Dimension.MODE.value, dimension.value)
        if cell.placement == placement and cell.values[1] != UNKNOWN
    ]


def _modes(cells: Sequence[Cell]) -> list[str]:
    return sorted({cell.values[0] for cell in cells})


def _middle(cell: Cell) -> float:
    low = cell.values[1].split()[0]
    return -0.5 / BANDS if low == "<" else float(low) + 0.5 / BANDS


def _shift(mode: str, modes: Sequence[str]) -> float:
    """Return how far a mode's points stand aside, so that whiskers do not cover each other."""
    return (modes.index(mode) - (len(modes) - 1) / 2) * 0.012
