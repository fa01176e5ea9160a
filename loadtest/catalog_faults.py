#!/usr/bin/env python3
"""What a server does while its catalogue is in trouble: `annserve serve` behind a proxy before a real mongod.

Calls come at a steady rate: without a filter, with a filter known from before, and with one never seen before. Each
fault is provoked in turn; what calls live to see during it is put beside the same time before it. Calls under way when
a fault begins wait for their own time, so the columns "open" leave out its first second and a half.

    .venv/bin/python loadtest/catalog_faults.py [--seconds 10] [--snapshots FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
# The tests' own servers and traffic; they are no package.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
from mongo_proxy import most_in_a_second
from mongod import Mongod
from outages import OUTAGES, Outage, lived_through, rigged
from served_catalog import Call, codes

from annserve.cli.output import print_rows, say
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore

RATES = {"unfiltered": 150.0, "known": 30.0, "unknown": 10.0}
"""Calls a second."""
WARM_UP_SECONDS = 3.0


def main() -> None:
    """Provoke, measure, print, leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, help="a folder with a live snapshot; by default the demo's")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each fault, and of the time before it")
    parser.add_argument("--only", choices=OUTAGES, action="append", help="this fault alone; may be repeated")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, snapshots_in(arguments.snapshots, Path(scratch)) as folder:
        rows = asyncio.run(measured(folder, Path(scratch), arguments))
    print_rows(rows, as_json=arguments.json, title=f"faults of {arguments.seconds:g} s; ms, calls a second as {RATES}")


@contextmanager
def snapshots_in(folder: Path | None, scratch: Path) -> Iterator[Path]:
    """Give ``folder``, or a new one with the demo's snapshot."""
    if folder is None:
        folder = scratch / "snapshots"
        say("training on the bundled data")
        command = [sys.executable, "-m", "annserve.cli", "train", "--demo", "--snapshots", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
    yield folder


async def measured(folder: Path, scratch: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each outage."""
    items = load_current(SnapshotStore(folder)).snapshot.items
    item_ids = items.ids(np.arange(len(items)))
    rows = []
    with Mongod() as mongod:
        async with rigged(mongod, folder, item_ids, scratch, RATES) as rig:
            await asyncio.sleep(WARM_UP_SECONDS)
            for name in arguments.only or OUTAGES:
                say(f"{name}: {arguments.seconds:g} s before it")
                rows.append(row_of(name, await lived_through(name, rig, arguments.seconds, arguments.seconds)))
    return rows


def row_of(name: str, outage: Outage) -> dict[str, Any]:
    """Return the figures of an outage."""
    before, during = p99_ms(outage.before("unfiltered")), p99_ms(outage.during("unfiltered"))
    every = [call for kind in RATES for call in outage.all(kind)]
    return {
        "fault": name,
        "unfiltered p99 before": before,
        "during": during,
        "ratio": None if before is None or during is None else round(during / before, 2),
        "unfiltered OK": share(outage.all("unfiltered"), lambda call: call.code == "OK"),
        "known OK": share(outage.all("known"), lambda call: call.code == "OK"),
        "marked, open": share(outage.settled("known"), lambda call: call.degraded),
        "unknown": " ".join(f"{code} {count}" for code, count in codes(outage.during("unknown")).items()),
        "UNAVAILABLE p99, open": p99_ms([call for call in outage.settled("unknown") if call.code == "UNAVAILABLE"]),
        "INTERNAL, UNKNOWN": sum(call.code in ("INTERNAL", "UNKNOWN") for call in every),
        "attempts a s": round(sum(map(len, outage.knocks.values())) / (outage.ended - outage.begun), 2),
        "most in a s": max((most_in_a_second(list(knocks)) for knocks in outage.knocks.values()), default=0),
        "healed s": None if outage.healed_seconds is None else round(outage.healed_seconds, 2),
    }


def p99_ms(calls: list[Call]) -> float | None:
    """Return the 99th percentile of how long calls took."""
    return round(float(np.percentile([call.seconds for call in calls], 99)) * 1e3, 2) if calls else None


def share(calls: list[Call], test: Callable[[Call], bool]) -> float | None:
    """Return the share of calls that pass."""
    return round(sum(map(test, calls)) / len(calls), 4) if calls else None


if __name__ == "__main__":
    main()
