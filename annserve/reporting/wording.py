"""What a report says in words, for tables and plots."""

from __future__ import annotations

from annserve.reporting.effects import Crossover
from annserve.reporting.estimates import Interval
from annserve.reporting.experiments import Assignment


def p_text(p_value: float | None) -> str:
    """Return a p-value as people read it."""
    if p_value is None:
        return "p unknown"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def percent(interval: Interval | None) -> str:
    """Return a rate and its interval in per cent."""
    if interval is None:
        return "-"
    value, low, high = (f"{100 * number:.2f}" for number in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"


def crossover_text(crossover: Crossover) -> str:
    """Return how differently similarity bears on the conversion of two modes: one sentence."""
    if crossover.crossing is None:
        modes = f"{crossover.mode} and {crossover.other_mode}"
        return f"no effect of similarity that differs between {modes} ({p_text(crossover.p_value)})"
    crossing = crossover.crossing
    where = f"they convert alike at {crossing.value:.2f} ({crossing.low:.2f} to {crossing.high:.2f})"
    rises = crossover.slope_difference is not None and crossover.slope_difference.value > 0
    better = crossover.mode if rises else crossover.other_mode
    return f"the more alike, the better {better} ({p_text(crossover.p_value)}); {where}"


def assignment_text(assignment: Assignment) -> str:
    """Return how an experiment's users were shared out, and whether that can be: one sentence."""
    users = ", ".join(f"{variant} {count:,}" for variant, count in assignment.users.items())
    shares = "declared shares" if assignment.are_shares_declared else "equal shares (none are declared)"
    said = f"users of {assignment.experiment}: {users}; {shares}: {p_text(assignment.p_value)}"
    if not assignment.is_mismatched:
        return said
    return f"SAMPLE RATIO MISMATCH, comparisons mean nothing until it is explained: {said}"
