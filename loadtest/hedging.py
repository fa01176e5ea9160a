#!/usr/bin/env python3
"""What hedging spares clients while one of four workers is stopped: `tests/chaos/test_hedging.py` at full length.

Calls are open loop, with the deadline that clients have by default; a call that fails counts with the time it took.
The goals are a 99.9th percentile at least 5 times lower, and at most 5 % more calls; one that is missed makes the exit
code 1.

    .venv/bin/python loadtest/hedging.py [--rate 200] [--seconds 20] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
# The tests' own instances and traffic; they are no package.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from checked_traffic import two_snapshots
from hedging_trial import calls_beside_a_stopped_worker
from instances import instance

from annserve.cli.output import print_json, print_rows, say
from annserve_client import Hedging

WORKERS = 4
RATIO_MIN = 5.0
EXTRA_SHARE_MAX = 0.05


def main() -> None:
    """Make calls beside a stopped worker, not hedged and hedged in turns, and print how they fared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second")
    parser.add_argument("--after-ms", type=float, default=20.0, help="when a call is hedged: well above what most take")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the worker is stopped each time")
    parser.add_argument("--rounds", type=int, default=3, help="how often both are measured")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "snapshots"
        say("building a snapshot")
        two_snapshots(root)
        with instance(root, Path(scratch), workers=WORKERS) as running:
            for number in range(arguments.rounds):
                for is_hedged in (False, True):
                    say(f"round {number + 1} of {arguments.rounds}, {'hedged' if is_hedged else 'not hedged'}")
                    outcome = asyncio.run(
                        calls_beside_a_stopped_worker(
                            running,
                            Hedging(after_seconds=arguments.after_ms / 1e3) if is_hedged else None,
                            rate=arguments.rate,
                            seconds=arguments.seconds,
                        )
                    )
                    rows.append({"hedged": is_hedged, **asdict(outcome), "extra": round(outcome.extra_share, 4)})
    plain, hedged = ([row for row in rows if row["hedged"] is kind] for kind in (False, True))
    ratio = statistics.median(row["p999_ms"] for row in plain) / statistics.median(row["p999_ms"] for row in hedged)
    extra = max(row["extra"] for row in hedged)
    if arguments.json:
        print_json({"rounds": rows, "p999_ratio": round(ratio, 1), "extra_share": extra})
    else:
        print_rows(rows, as_json=False)
        print(f"99.9th percentile, medians: {ratio:.1f} times lower with hedging; extra calls: {extra:.1%}")
    if ratio < RATIO_MIN or extra > EXTRA_SHARE_MAX:
        sys.exit(f"missed: a ratio of at least {RATIO_MIN}, extra calls of at most {EXTRA_SHARE_MAX:.0%}")


if __name__ == "__main__":
    main()
