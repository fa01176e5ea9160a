#!/usr/bin/env python3
"""Loads an instance of its own, scenario by scenario, and looks for the rate that it bears.

Each scenario is a run of locust (`locustfile.py`): calls come at random moments, however long earlier ones take, and
count from when they were due. Then calls come faster, step by step, until p99 is beyond a bound; those steps are made
by `open_loop.py`, which costs far less than a client library, so that it is the server that gives up first.

Written to --out: results.json, a report of locust's for each scenario (.html), each call of it (.npz), and plots.

    make loadtest                                                  # installs locust first
    .venv/bin/python loadtest/load.py --snapshots FOLDER --scenario zipf mixed --rate 500 --workers 2
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
# The tests' own instances; they are no package.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

if missing := [name for name in ("locust", "matplotlib") if find_spec(name) is None]:
    sys.exit(f"{' and '.join(missing)} missing: `make loadtest` installs what is needed, or `pip install .[loadtest]`")

import numpy as np
import yaml
from catalog_faults import snapshots_in
from grown import model_of
from instances import Instance, instance
from open_loop import OK, Connection, connect, keep_busy, moments_of, send_at
from plots import draw_latencies, draw_steps
from prometheus_client.parser import text_string_to_metric_families
from samples import Samples, percentile
from scenarios import CATALOGUE_FIELDS, SCENARIOS, Population, calls_of, catalogue_lines
from steps import highest_rate

from annserve.cli.output import print_json, print_rows, say
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.pull import SnapshotSource
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
WARM_UP_SECONDS = 2.0
PATIENCE_SECONDS = 120.0
"""So much longer than its calls a run of locust may take."""
SWAP_EVERY_SECONDS = 3.0
SEARCHED = ("uniform", "mixed")
LATE_MS_MAX = 5.0
"""Calls that are sent later than this say more of the load's maker than of the server."""
FIRST_RATE = 200.0
ROWS_OF_BATCH_RATE = 8
"""A batch is many questions: it comes so much more rarely."""

Row = dict[str, Any]


def main() -> None:
    """Load, print, write; leave nothing running. Exit with 1 when a call failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, help="a folder with a live snapshot; by default the demo's")
    parser.add_argument("--scenario", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each scenario lasts")
    parser.add_argument("--connections", type=int, default=8, help="users of locust's")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--search", nargs="*", choices=list(SCENARIOS), default=list(SEARCHED), help="for the rate borne"
    )
    parser.add_argument("--p99-ms", type=float, default=20.0, help="the bound of p99 that a rate must keep to be borne")
    parser.add_argument("--step-seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=Path("loadtest-report"), help="where reports go")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, snapshots_in(arguments.snapshots, Path(scratch)) as folder:
        results = Loads(arguments, folder, Path(scratch)).results()
    (arguments.out / "results.json").write_text(json.dumps(results, indent=2))
    if arguments.json:
        print_json(results)
    else:
        print_rows(results["scenarios"], as_json=False, title=f"{arguments.workers} workers, locust, open loop")
        if results["rates"]:
            print_rows(results["rates"], as_json=False, title=f"the highest rate with p99 <= {arguments.p99_ms:g} ms")
        say(f"reports and plots are in {arguments.out}")
    sys.exit(any(row["failed"] for row in results["scenarios"]))


class Loads:
    """The loads that are asked for, on instances of one snapshot and a catalogue made for it."""

    def __init__(self, arguments: argparse.Namespace, snapshots: Path, scratch: Path) -> None:
        self._arguments = arguments
        self._snapshots = snapshots
        self._scratch = scratch
        self._population = Population.in_folder(snapshots)
        self._catalogue = catalogue_options(self._population.item_ids, scratch)

    def results(self) -> dict[str, Any]:
        """Return the figures of all, after writing reports and plots."""
        arguments, out = self._arguments, self._arguments.out
        rows: list[Row] = []
        taken = {}
        for scenario in arguments.scenario:
            say(f"{scenario}: {arguments.seconds:g} s")
            samples, more = self._run(scenario)
            rows.append({"scenario": scenario} | samples.figures() | more)
            taken[scenario] = samples.taken_ms()
            if not samples.codes:
                sys.exit(f"{scenario}: no call was made; see {out / scenario}.log")
            for code, count in samples.failures().items():
                say(f"{scenario}: {count} x {code}")
            if (rows[-1]["sent late p99 ms"] or 0) > LATE_MS_MAX:
                say(f"{scenario}: locust was late itself; fewer calls a second, or more processors, say more")
        draw_latencies(taken, out / "latencies.png")
        steps = {scenario: self._search(scenario) for scenario in arguments.search}
        if steps:
            draw_steps(steps, arguments.p99_ms, out / "rates.png")
        rates = [self._borne(scenario, tried) for scenario, tried in steps.items()]
        return {"settings": _plain(arguments), "scenarios": rows, "rates": rates, "steps": steps}

    @contextmanager
    def _instance(self, snapshots: Path) -> Iterator[Instance]:
        with instance(snapshots, self._scratch, *self._catalogue, workers=self._arguments.workers) as running:
            yield running

    def _run(self, scenario: str) -> tuple[Samples, Row]:
        """Return each call of a run of locust, and what else is to be said of it."""
        arguments = self._arguments
        samples = arguments.out / f"{scenario}.npz"
        if scenario != "swap":
            with self._instance(self._snapshots) as running, self._locust(scenario, running.address, samples) as load:
                load.wait(arguments.seconds + PATIENCE_SECONDS)
            return Samples.read(samples), {"swaps": None}
        store, snapshot_ids = self._two_snapshots()
        with self._instance(store.root) as running, self._locust(scenario, running.address, samples) as load:
            swap_during(load, store, snapshot_ids, arguments.seconds + PATIENCE_SECONDS)
            swaps = swap_count(running)
        return Samples.read(samples), {"swaps": swaps}

    @contextmanager
    def _locust(self, scenario: str, address: str, samples: Path) -> Iterator[subprocess.Popen[bytes]]:
        arguments = self._arguments
        samples.unlink(missing_ok=True)
        rate = arguments.rate / (ROWS_OF_BATCH_RATE if scenario == "batch" else 1)
        options = {
            "host": address,
            "users": arguments.connections,
            "spawn-rate": arguments.connections,
            "window": arguments.seconds,
            "html": arguments.out / f"{scenario}.html",
            "scenario": scenario,
            "rate": rate,
            "snapshots": self._snapshots,
            "warm-up": WARM_UP_SECONDS,
            "samples": samples,
        }
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
        command += list(itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in options.items()))
        log = arguments.out / f"{scenario}.log"
        with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
            try:
                yield process
            finally:
                # Whatever went wrong, it does not stay behind.
                process.kill()

    def _two_snapshots(self) -> tuple[SnapshotStore, Sequence[str]]:
        """Return a store with what is served, and another snapshot of the same vectors."""
        root = self._scratch / "swapped"
        root.mkdir()
        store, live = SnapshotStore(root), SnapshotStore(self._snapshots).current_id()
        if live is None:
            raise RuntimeError(f"no snapshot in {self._snapshots}")
        SnapshotSource(str(self._snapshots)).pull(live, store)
        store.activate(live)
        snapshot = load_current(store).snapshot
        twin = build_snapshot(model_of(snapshot), store)
        return store, (live, twin.snapshot_id)

    def _search(self, scenario: str) -> list[Row]:
        """Return every rate that was tried."""
        say(f"{scenario}: looking for the highest rate")
        arguments = self._arguments
        tried: list[Row] = []
        with self._instance(self._snapshots) as running:
            calls = calls_of(scenario, self._population)

            async def step(rate: float) -> Row:
                connections = await connect(running.address, arguments.connections, timeout_seconds=1.0)
                # What was begun too early would pay for imports and first look-ups.
                await keep_busy(connections, calls, 1, WARM_UP_SECONDS if not tried else 0.2)
                return await stepped(connections, calls, rate, arguments.step_seconds)

            def bears(rate: float) -> bool:
                tried.append(asyncio.run(step(rate)))
                tried[-1]["borne"] = not tried[-1]["failed"] and tried[-1]["p99 ms"] <= arguments.p99_ms
                return bool(tried[-1]["borne"])

            highest_rate(bears, first=FIRST_RATE)
        return tried

    def _borne(self, scenario: str, tried: Sequence[Row]) -> Row:
        best = max((row for row in tried if row["borne"]), key=lambda row: float(row["calls/s"]), default=None)
        figures = best or {"calls/s": None, "p50 ms": None, "p99 ms": None}
        return {"scenario": scenario, **{name: figures[name] for name in ("calls/s", "p50 ms", "p99 ms")}}


async def stepped(connections: list[Connection], calls: Iterator[Any], rate: float, seconds: float) -> Row:
    """Return what calls at ``rate`` came to."""
    outcomes = await send_at(connections, calls, moments_of(rate, seconds, np.random.default_rng(0)))
    for connection in connections:
        connection.close()
    milliseconds = np.array(outcomes.seconds) * 1e3
    return {
        "calls/s": round(rate, 1),
        "failed": len(outcomes.statuses) - outcomes.statuses.count(OK),
        "p50 ms": percentile(milliseconds, 50),
        "p99 ms": percentile(milliseconds, 99),
    }


def swap_during(
    load: subprocess.Popen[bytes], store: SnapshotStore, snapshot_ids: Sequence[str], seconds_max: float
) -> None:
    """Change the live snapshot every few seconds while ``load`` runs."""
    for number in range(round(seconds_max / SWAP_EVERY_SECONDS)):
        try:
            load.wait(SWAP_EVERY_SECONDS)
            return
        except subprocess.TimeoutExpired:
            store.activate(snapshot_ids[(number + 1) % len(snapshot_ids)])
    raise subprocess.TimeoutExpired(load.args, seconds_max)


def swap_count(running: Instance) -> int:
    """Return how often the instance has come to serve another snapshot."""
    with urllib.request.urlopen(f"http://{running.ops_address}/metrics", timeout=5.0) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = itertools.chain.from_iterable(family.samples for family in families)
    name, labels = "annserve_index_swaps_total", {"outcome": "succeeded"}
    return round(sum(sample.value for sample in samples if sample.name == name and sample.labels == labels))


def catalogue_options(item_ids: Sequence[str], folder: Path) -> list[str]:
    """Write a catalogue of ``item_ids``, and return the options that have `annserve serve` use it."""
    items, config = folder / "items.jsonl", folder / "catalog.yaml"
    items.write_text("".join(json.dumps(line) + "\n" for line in catalogue_lines(item_ids)))
    config.write_text(yaml.safe_dump({"fields": dict(CATALOGUE_FIELDS)}))
    histories = folder / "histories.jsonl"
    return ["--catalog", str(items), "--catalog-config", str(config), "--histories", str(histories)]


def _plain(arguments: argparse.Namespace) -> Row:
    named = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    return named | {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "processors": os.cpu_count()}


if __name__ == "__main__":
    main()
