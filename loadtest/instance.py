#!/usr/bin/env python3
"""What an instance lives through under load, and whether it keeps its promises: `tests/chaos` at full length.

Each switch is a trial of its own; a goal that is missed is named, and the exit code is 1. Calls are the shipped
client's, with its own deadline and retries, and every answer is compared with exact scores of its snapshot.

    .venv/bin/python loadtest/instance.py --kills 100 --minutes 2
    .venv/bin/python loadtest/instance.py --swaps 50 --bad 1000 --drains 20 --terms 10
    .venv/bin/python loadtest/instance.py --zipf --updates 0 10 1000 --snapshots FOLDER   # builds 100,000 items once
    .venv/bin/python loadtest/instance.py --memory --snapshots FOLDER
    .venv/bin/python loadtest/instance.py --soak 15 [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
# The tests' own instances and traffic; they are no package.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import psutil
from checked_traffic import errors, percentile_ms, two_snapshots
from edge import random_model
from instance_trials import (
    Rig,
    kill_keeper,
    kill_workers,
    offer_damaged,
    p99_ratio,
    pss_bytes,
    restart_workers,
    rigged,
    swap_to_and_fro,
)
from instances import Instance, instance
from mongod import Mongod
from open_loop import Call, connect, keep_busy
from scenarios import Population, calls_of
from skewed import CONNECTIONS, OFFERED_SHARE, SETTLED_SECONDS, Setting, compared, load_catalogue

from annserve.cli.output import print_json, print_rows, say
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore

BACK_SECONDS = 2.0
P99_RATIO_MAX = 2.0
SKEWED_P99_RATIO_MAX = 1.5
RATE_KEPT_MIN = 0.9
LARGE_ITEM_COUNT = 100_000
MEMORY_SWAPS = 4
MEMORY_RATIO, MEMORY_BYTES_EACH = 1.2, 40e6
"""N workers may take so much of what one takes, and so much more each."""
ZIPF_ITEM_COUNT = 5_000

Row = dict[str, Any]


class Report:
    """Tables, and the goals that were missed."""

    def __init__(self, *, is_quiet: bool) -> None:
        self.tables: dict[str, list[Row]] = {}
        self.missed: list[str] = []
        self._is_quiet = is_quiet

    def add(self, title: str, rows: Sequence[Row]) -> None:
        """Add a table, and print it for people who wait."""
        self.tables[title] = list(rows)
        if not self._is_quiet:
            print_rows(list(rows), as_json=False, title=title)

    def require(self, holds: bool, goal: str) -> None:
        """Note that ``goal`` is missed unless it ``holds``."""
        if not holds:
            self.missed.append(goal)
            say(f"missed: {goal}")


def main() -> None:
    """Try, print, leave nothing running; exit with 1 when a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0, help="workers to kill")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long the killing takes")
    parser.add_argument("--drains", type=int, default=0, help="workers to have restarted")
    parser.add_argument("--terms", type=int, default=0, help="instances to stop by TERM")
    parser.add_argument("--swaps", type=int, default=0, help="changes of snapshots")
    parser.add_argument("--bad", type=int, default=0, help="damaged snapshots to offer")
    parser.add_argument("--zipf", action="store_true", help="skewed load beside uniform load")
    parser.add_argument("--memory", action="store_true", help="what 1, 2 and 4 workers take")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="swaps and kills for so long")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="numbers of workers for --zipf")
    parser.add_argument("--updates", type=int, nargs="+", default=[0, 10, 1_000], help="of items, a second, for --zipf")
    parser.add_argument("--round-seconds", type=float, default=5.0, help="of each round for --zipf")
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second of the checked traffic")
    parser.add_argument("--timeout", type=float, help="seconds a checked call may take, instead of the client's own")
    parser.add_argument("--snapshots", type=Path, help="where large snapshots are, or are built and kept")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = Report(is_quiet=arguments.json)
    with tempfile.TemporaryDirectory() as scratch:
        trials = Trials(arguments, report, Path(scratch))
        for name in ("kills", "drains", "terms", "swaps", "bad", "zipf", "memory", "soak"):
            if getattr(arguments, name):
                getattr(trials, name)()
    if arguments.json:
        print_json({"tables": report.tables, "missed": report.missed})
    sys.exit(bool(report.missed))


class Trials:
    """The trials, by the names of their switches."""

    def __init__(self, arguments: argparse.Namespace, report: Report, scratch: Path) -> None:
        self._arguments = arguments
        self._report = report
        self._scratch = scratch
        self._small: tuple[Path, tuple[str, str]] | None = None

    def _rigged(self, drain_delay_ms: int = 0) -> AbstractContextManager[Rig]:
        if self._small is None:
            root = self._scratch / "small"
            self._small = root, two_snapshots(root)
        root, snapshot_ids = self._small
        # Whatever the trial before left.
        SnapshotStore(root).activate(snapshot_ids[1])
        arguments = self._arguments
        return rigged(
            root,
            snapshot_ids,
            self._folder(),
            rate=arguments.rate,
            timeout_seconds=arguments.timeout,
            ANNSERVE_DRAIN_DELAY_MS=str(drain_delay_ms),
        )

    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._scratch))

    def _told(self, rig: Rig, what: str, rows: Row) -> None:
        """Report what calls and probes lived through; nobody may have noticed anything."""
        traffic, probes = rig.traffic, rig.probes
        row = {
            "calls": len(traffic.calls),
            "failed": len(traffic.failed),
            "wrong": len(traffic.invalid),
            "p50_ms": percentile_ms(traffic.calls, 50),
            "p99_ms": percentile_ms(traffic.calls, 99),
            "longest_ms": percentile_ms(traffic.calls, 100),
            "probes": probes.count,
            "probes failed": len(probes.failures),
            "longest probe ms": round(probes.seconds_max * 1e3, 1),
        }
        self._report.add(what, [rows | row])
        for error, count in errors(traffic.calls).items():
            say(f"{count} x {error}")
        self._report.require(not traffic.failed, f"{what}: no call fails")
        self._report.require(not traffic.invalid, f"{what}: no answer is wrong")
        self._report.require(not probes.failures, f"{what}: probes are answered ({probes.failures[:2]})")

    def kills(self) -> None:
        """Kill workers."""
        count = self._arguments.kills
        with self._rigged() as rig:
            back = kill_workers(rig, count, self._arguments.minutes * 60 / count)
        row = {"kills": count, "back p50 s": _rounded(statistics.median(back)), "back longest s": _rounded(max(back))}
        self._told(rig, f"{count} SIGKILLs of workers", row)
        self._report.require(max(back) < BACK_SECONDS, f"killed workers are replaced within {BACK_SECONDS} s")

    def drains(self) -> None:
        """Have workers restarted, and the keeper killed."""
        with self._rigged() as rig:
            restart_workers(rig, self._arguments.drains)
            back = [kill_keeper(rig) for _ in range(3)]
        self._told(
            rig,
            f"{self._arguments.drains} restarts of workers, 3 SIGKILLs of the keeper",
            {"keeper back longest s": _rounded(max(back))},
        )

    def terms(self) -> None:
        """Stop instances while calls are under way."""
        delay_seconds, rows = 1.0, []
        for _ in range(self._arguments.terms):
            with self._rigged(round(delay_seconds * 1_000)) as rig:
                told = time.monotonic()
                rig.instance.process.send_signal(signal.SIGTERM)
                code = rig.instance.process.wait(30)
                seconds = time.monotonic() - told
            begun_before = rig.traffic.between(0.0, told + delay_seconds)
            rows.append(
                {
                    "exit code": code,
                    "seconds to exit": _rounded(seconds),
                    "calls begun before": len(begun_before),
                    "failed of them": sum(bool(call.error) for call in begun_before),
                    "wrong": len(rig.traffic.invalid),
                }
            )
        self._report.add(f"TERM, calls taken for {delay_seconds:g} s more", rows)
        self._report.require(
            not any(row["exit code"] or row["failed of them"] or row["wrong"] for row in rows),
            "TERM fails no call that was begun before",
        )

    def swaps(self) -> None:
        """Move ``CURRENT`` to and fro."""
        count = self._arguments.swaps
        with self._rigged() as rig:
            time.sleep(5.0)
            begun = time.monotonic()
            one = sum(pss_bytes(rig.instance).values())
            swaps = swap_to_and_fro(rig, count)
            # Apart: to count a process's pages holds it up, and whoever calls from here.
            peak = max(swap.pss_bytes for swap in swap_to_and_fro(rig, MEMORY_SWAPS, measure_memory=True))
        seconds = [swap.seconds for swap in swaps]
        ratio = p99_ratio(rig, begun, [(swap.began, swap.ended) for swap in swaps])
        row = {
            "swaps": count,
            "until all new p50 s": _rounded(statistics.median(seconds)),
            "longest s": _rounded(max(seconds)),
            "p99 beside quiet": ratio,
            "Pss MB": round(one / 1e6),
            "Pss MB at most": round(peak / 1e6),
        }
        self._told(rig, f"{count} swaps", row)
        self._report.require(ratio <= P99_RATIO_MAX, f"p99 while snapshots change is within {P99_RATIO_MAX}x")

    def bad(self) -> None:
        """Offer damaged snapshots."""
        count = self._arguments.bad
        with self._rigged() as rig:
            quiet = time.monotonic()
            time.sleep(5.0)
            begun = time.monotonic()
            causes = offer_damaged(rig, count)
            ended = time.monotonic()
        rate = len(rig.traffic.between(begun, ended)) / (ended - begun)
        kept = rate / (len(rig.traffic.between(quiet, begun)) / (begun - quiet))
        self._report.add(
            "what damaged snapshots were refused with",
            [{"damage and reason": cause, "times": causes.count(cause)} for cause in sorted(set(causes))],
        )
        row = {"offered": count, "refused": len(causes), "rate kept": _rounded(kept)}
        self._told(rig, f"{count} damaged snapshots", row | {"seconds each": _rounded((ended - begun) / count)})
        self._report.require(kept >= RATE_KEPT_MIN, f"the rate of calls stays above {RATE_KEPT_MIN:.0%}")

    def soak(self) -> None:
        """Swap and kill for a long time, and look what grows."""
        rows: list[Row] = []
        with self._rigged() as rig:
            begun = time.monotonic()
            while (spent := time.monotonic() - begun) < self._arguments.soak * 60:
                swap_to_and_fro(rig, 2)
                kill_workers(rig, 2, 2.0)
                rows.append({"minute": _rounded(spent / 60)} | _resources(rig.instance))
        self._told(rig, f"soak of {self._arguments.soak:g} minutes", {"rounds": len(rows)})
        self._report.add("soak", rows[:: max(len(rows) // 15, 1)])
        half = rows[len(rows) // 3 :]
        for name in ("descriptors", "threads", "supervisor MB", "keeper MB"):
            grown = half[-1][name] - half[0][name]
            self._report.require(grown <= max(0.05 * half[0][name], 3), f"{name} stay as they are (grew by {grown:g})")

    # With a large snapshot.

    def _large(self) -> Path:
        root: Path = self._arguments.snapshots or self._scratch / "large"
        if SnapshotStore(root).current_id() is None:
            say(f"building {LARGE_ITEM_COUNT:,} items in {root}: minutes")
            build_snapshot(random_model(LARGE_ITEM_COUNT, 64), SnapshotStore(root))
        return root

    def memory(self) -> None:
        """Compare what workers take together with what one takes."""
        root = self._large()
        rows: list[Row] = []
        snapshot = load_current(SnapshotStore(root)).snapshot
        population = Population.of(snapshot, items_max=ZIPF_ITEM_COUNT)
        del snapshot
        for workers in (1, 2, 4):
            with instance(root, self._folder(), workers=workers) as running:
                asyncio.run(_used(running.address, calls_of("uniform", population)))
                taken = pss_bytes(running)
                names = {pid: " ".join(psutil.Process(pid).cmdline()) for pid in taken}
            serving = sum(size for pid, size in taken.items() if "loader" in names[pid] or "worker" in names[pid])
            first = serving if not rows else rows[0]["loader and workers MB"] * 1e6
            bound = MEMORY_RATIO * first + MEMORY_BYTES_EACH * workers
            rows.append(
                {
                    "workers": workers,
                    "loader and workers MB": round(serving / 1e6, 1),
                    "at most MB": round(bound / 1e6, 1),
                    "keeper and supervisor MB": round((sum(taken.values()) - serving) / 1e6, 1),
                }
            )
            self._report.require(serving <= bound, f"{workers} workers share the snapshot's memory")
        self._report.add("memory, proportional shares", rows)

    def zipf(self) -> None:
        """Compare skewed with uniform load."""
        root, arguments = self._large(), self._arguments
        snapshot = load_current(SnapshotStore(root)).snapshot
        asked_ids = Population.of(snapshot, items_max=ZIPF_ITEM_COUNT).item_ids
        item_ids = Population.of(snapshot).item_ids
        del snapshot
        with Mongod() as mongod:
            for workers, cache, updates in itertools.product(
                arguments.workers, ("--shared-cache", "--no-shared-cache"), arguments.updates
            ):
                load_catalogue(mongod.uri, item_ids)
                setting = Setting(
                    snapshots=root,
                    folder=self._folder(),
                    uri=mongod.uri,
                    item_ids=item_ids,
                    asked_ids=asked_ids,
                    workers=workers,
                    cache=cache,
                    updates=updates,
                    round_seconds=arguments.round_seconds,
                )
                case, rows = f"{workers} workers, {cache}, {updates} updates/s", compared(setting)
                for row in rows:
                    self._judge(row, f"{row['load']}, {case}")
                # At once: whoever ends a long run early has what was measured.
                self._report.add(f"{case}: {ZIPF_ITEM_COUNT:,} items, {OFFERED_SHARE:.0%} of uniform's peak", rows)

    def _judge(self, row: Row, case: str) -> None:
        self._report.require(not row["failed"], f"{case}: no call fails")
        self._report.require(not row["stale"], f"{case}: no answer is older than {SETTLED_SECONDS:g} s")
        if row["workers"] == 1:
            # More workers than processors, and the load beside them, say nothing of speed.
            goal = f"{case}: p99 within {SKEWED_P99_RATIO_MAX}x of uniform"
            self._report.require(row["p99 beside uniform"] <= SKEWED_P99_RATIO_MAX, goal)


async def _used(address: str, calls: Iterator[Call]) -> None:
    """Have every worker answer, so that it holds what it comes to hold."""
    connections = await connect(address, CONNECTIONS)
    await keep_busy(connections, calls, 2, 2.0)
    for connection in connections:
        connection.close()


def _resources(running: Instance) -> Row:
    """Return what the instance's processes hold."""
    shares, rows = pss_bytes(running), {"descriptors": 0, "threads": 0}
    keeper = running.keeper_pid()
    for pid in shares:
        try:
            process = psutil.Process(pid)
            rows["descriptors"] += process.num_fds()
            rows["threads"] += process.num_threads()
        except psutil.NoSuchProcess:
            continue
    cache_bytes = 0
    if keeper is not None:
        # It fills up to its bound, however long that takes: no leak.
        cache_bytes = sum(one.pss for one in psutil.Process(keeper).memory_maps() if Path(one.path).name == "data.mdb")
    return rows | {
        "processes": len(shares),
        "supervisor MB": round(shares[running.process.pid] / 1e6, 1),
        "keeper MB": round((shares.get(keeper or 0, cache_bytes) - cache_bytes) / 1e6, 1),
        "cache MB": round(cache_bytes / 1e6, 1),
        "all MB": round(sum(shares.values()) / 1e6, 1),
    }


def _rounded(value: float) -> float:
    return round(value, 2)


if __name__ == "__main__":
    main()
