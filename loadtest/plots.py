"""Plots of load tests; needs matplotlib, of the extra ``plots``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Labels stay text, and a plot drawn again is the same file.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "annserve", "axes.grid": True, "grid.alpha": 0.3})

_PANELS_ACROSS = 3
_SHARES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)


def draw_latencies(milliseconds: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """Draw how long calls took by percentile, a line for each load; the rare slow ones get as much room as the rest."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, values in milliseconds.items():
        ordered = np.sort(values)
        shares = np.arange(len(ordered)) / len(ordered)
        axes.plot(1 / (1 - shares), ordered, label=name)
    axes.set(xscale="log", yscale="log", xlabel="percentile", ylabel="ms since the call was due")
    axes.set_xticks(
        [1 / (1 - share) for share in _SHARES], [f"{share:.4%}".rstrip("0%").rstrip(".") for share in _SHARES]
    )
    axes.legend()
    _save(figure, path)


def draw_steps(steps: Mapping[str, Sequence[Mapping[str, Any]]], bound_ms: float, path: Path) -> None:
    """Draw p99 by the rate of calls, a line for each load, and the bound."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, tried in steps.items():
        ordered = sorted(tried, key=lambda step: float(step["calls/s"]))
        axes.plot([step["calls/s"] for step in ordered], [step["p99 ms"] for step in ordered], "o-", label=name)
    axes.axhline(bound_ms, linestyle="--", color="grey", label=f"{bound_ms:g} ms")
    axes.set(yscale="log", xlabel="calls a second", ylabel="p99, ms since the call was due")
    axes.legend()
    _save(figure, path)


def draw_growth(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], path: Path) -> None:
    """Draw a panel for each of ``columns``, by name, over the number of items; every point says what it is."""
    down = -(-len(columns) // _PANELS_ACROSS)
    figure = Figure(figsize=(3.4 * _PANELS_ACROSS, 3.0 * down), layout="constrained")
    panels = figure.subplots(down, _PANELS_ACROSS, squeeze=False).flat
    for axes, (column, label) in zip(panels, columns.items(), strict=False):
        items, values = [row["items"] for row in rows], [row[column] for row in rows]
        axes.plot(items, values, "o-")
        for item_count, value in zip(items, values, strict=True):
            text = f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
            axes.annotate(text, (item_count, value), (0, 6), textcoords="offset points", ha="center", fontsize=8)
        axes.set(xscale="log", yscale="log", xlabel="items", title=label)
        axes.margins(0.15, 0.2)
        axes.set_xticks(items, [f"{item_count:,}" for item_count in items], rotation=30)
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_formatter("")
        axes.xaxis.minorticks_off()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    # No date, so that it changes only when figures do.
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
