"""How often the intervals of `annserve report placements` cover the truth, and how often it finds what is there.

Months of events are simulated (`tests/simulated_month.py`: users who come back, an effect of similarity that differs by
mode, a placement without any) and reported. 200 of them take some three minutes on one core.

What is planted, both slopes and their difference, must be covered in 93 % of the months. Of the other estimates it must
not be beyond chance that they are covered as often: at 95 % each, one of nine is below 93 % in every second run of 200.

    python loadtest/report_coverage.py --runs 200 --users 1000
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from pathlib import Path

# The simulation is that of the tests.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import binom
from simulated_month import CONFIDENCE, covers, intervals, reported_month

COVERAGE_MIN = 0.93
PLANTED = ("slope of taste", "slope of context", "difference of slopes")
CHANCE_MIN = 0.001
FOUND_MIN = 0.99


def main() -> None:
    """Simulate, report, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--users", type=int, default=1_000, help="of a month, with some 16 impressions each")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    asked: Counter[str] = Counter()
    covered: Counter[str] = Counter()
    found = 0
    runs = range(arguments.seed, arguments.seed + arguments.runs)
    for seed in track(runs, "months", console=Console(stderr=True)):
        report = asyncio.run(reported_month(seed, arguments.users))
        for name, interval, truth in intervals(report):
            asked[name] += 1
            covered[name] += covers(interval, truth)
        planted = next(crossover for crossover in report.crossovers if crossover.placement == "popup")
        found += planted.p_value is not None and planted.p_value < 1 - CONFIDENCE

    table = Table("estimate", "intervals", f"cover the truth ({CONFIDENCE:.0%} asked)", title="report placements")
    for name, count in asked.items():
        table.add_row(name, f"{count:,}", f"{covered[name] / count:.1%}")
    Console(width=100).print(table)
    print(f"the planted effect was found in {found} of {arguments.runs} months")
    missed = [name for name, count in asked.items() if _is_missed(name, covered[name], count)]
    if missed or found < FOUND_MIN * arguments.runs:
        sys.exit(f"below {COVERAGE_MIN:.0%}: {', '.join(missed) or 'none'}; found in {found} of {arguments.runs}")


def _is_missed(name: str, covered: int, count: int) -> bool:
    if name in PLANTED:
        return covered < COVERAGE_MIN * count
    return bool(binom.cdf(covered, count, COVERAGE_MIN) < CHANCE_MIN)


if __name__ == "__main__":
    main()
