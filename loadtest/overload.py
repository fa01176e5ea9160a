#!/usr/bin/env python3
"""Whether a worker that is offered more than it can do still does what it can.

One worker on one processor answers exact searches of some milliseconds each. A closed loop finds how many a second it
can answer; then calls come at 0.8, 2, 4 and 10 times that rate, at random moments, whatever becomes of earlier ones.
Fails unless, of what it could answer, it answers 90, 80 and 60 % in time, the slowest of what it answers takes at most
twice as long as at 0.8, it refuses within 20 ms, and 2 s after the last of it things are as before.

The generator has another processor. How much of the time it could not have it, because of others, is
``generator_waited``: where that is no small part, latencies are not the server's alone.

    .venv/bin/python loadtest/overload.py [--transport grpcio] [--seconds 5] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from edge import random_model
from open_loop import NO_ANSWER, OK, Call, Outcomes, connect, keep_busy, moments_of, send_at

from annserve.cli.output import print_json, print_rows
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import recommendation_service_pb2 as messages

METHOD = "/annserve.v1.RecommendationService/Similar"
WANTED = {2: 0.9, 4: 0.8, 10: 0.6}
"""Of the capacity, by times the capacity."""
P99_TIMES_MAX = 2.0
REFUSAL_MS_MAX = 20.0
CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE = 1, 4, 14
READY_SECONDS = 180.0


def main() -> None:
    """Measure, print, say what was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, help="a folder with a live snapshot, else a random one is built")
    parser.add_argument("--items", type=int, default=24_000, help="of the random snapshot")
    parser.add_argument("--dimension", type=int, default=1_024, help="of the random snapshot")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each load lasts")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1, help="for searches; each keeps a processor busy")
    parser.add_argument("--approximate", action="store_true", help="calls as cheap as they are, for comparison")
    parser.add_argument("--transport", choices=["auto", "grpcio", "native"], default="auto")
    parser.add_argument("--rounds", type=int, default=1, help="how often all of it; each figure is their median")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.snapshots
        if folder is None:
            folder = Path(scratch) / "snapshots"
            model = random_model(arguments.items, arguments.dimension)
            build_snapshot(model, SnapshotStore(folder), accept_recall=0.01)
        processors = sorted(os.sched_getaffinity(0))
        with serving(folder, processors[0], arguments.transport, arguments.threads) as address:
            if len(processors) > 1:
                os.sched_setaffinity(0, processors[1:])
            rows = medians([asyncio.run(measured(address, arguments)) for _ in range(arguments.rounds)])
    problems = problems_of(rows)
    if arguments.json:
        print_json({"loads": rows, "missed": problems})
    else:
        print_rows(rows, as_json=False)
        print("\n".join(problems) or "all as it should be")
    sys.exit(bool(problems))


@contextmanager
def serving(snapshots: Path, processor: int, transport: str, threads: int) -> Iterator[str]:
    """Run an instance of one worker on one ``processor``; gives its address."""
    annserve = shutil.which("annserve", path=str(Path(sys.executable).parent)) or "annserve"
    command = [annserve, "serve", "--address", "127.0.0.1:0", "--ops-address", "127.0.0.1:0", "--workers", "1"]
    command += ["--admin-address", "127.0.0.1:0", "--snapshots", str(snapshots), "--no-shared-cache"]
    command += ["--transport", transport]
    # The keeper and the supervisor share the processor: that is how one is sold.
    pinned = ["taskset", "-c", str(processor), *command]
    environment = {"ANNSERVE_ANSWER_TTL_MS": "0", "ANNSERVE_EXECUTOR_THREADS": str(threads)}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(pinned, stderr=said, env={**os.environ, **environment})
        try:
            yield _address(process, said)
        finally:
            process.terminate()
            process.wait(READY_SECONDS)


def _address(process: subprocess.Popen[bytes], said: Any) -> str:
    give_up = time.monotonic() + READY_SECONDS
    while True:
        said.seek(0)
        text = said.read()
        found = re.search(r"serving .* on (\S+:\d+)", text)
        if found:
            return str(found[1])
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"no server: {text}")
        time.sleep(0.05)


def medians(rounds: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return rows whose figures are the medians of those of all rounds."""
    return [
        {
            name: value if isinstance(value, str) else statistics.median(row[name] for row in rows)
            for name, value in rows[0].items()
        }
        for rows in zip(*rounds, strict=True)
    ]


async def measured(address: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each load."""
    request = messages.SimilarRequest(item_ids=["item-0000001"])
    if not arguments.approximate:
        request.options.search_parameters.exact = True
    connections = await connect(address, arguments.connections)
    calls = itertools.repeat(Call(METHOD, request.SerializeToString()))
    random = np.random.default_rng(0)
    await keep_busy(connections[:2], calls, 1, 1.0)
    few, waited = await timed(keep_busy(connections[:4], calls, 1, arguments.seconds))
    capacity = few.statuses.count(OK) / arguments.seconds
    rows = [row("4 in flight", few, arguments.seconds, capacity, waited)]
    for times in (0.8, *WANTED, 0.8):
        moments = moments_of(times * capacity, arguments.seconds, random)
        outcomes, waited = await timed(send_at(connections, calls, moments))
        rows.append(row(f"{times:g} x", outcomes, arguments.seconds, capacity, waited))
        await asyncio.sleep(2.0 if times == 10 else 0.5)
    for connection in connections:
        connection.close()
    return rows


async def timed(run: Awaitable[Outcomes]) -> tuple[Outcomes, float]:
    """Return what ``run`` does, and for how much of its time this thread was ready and had no processor."""
    began_at, waited_before = time.monotonic(), _waited_seconds()
    outcomes = await run
    return outcomes, (_waited_seconds() - waited_before) / (time.monotonic() - began_at)


def _waited_seconds() -> float:
    _, waited_ns, _ = Path("/proc/thread-self/schedstat").read_text().split()
    return int(waited_ns) / 1e9


def row(load: str, outcomes: Outcomes, seconds: float, capacity: float, waited: float) -> dict[str, Any]:
    """Return what ``outcomes`` come to."""
    statuses, milliseconds = np.array(outcomes.statuses), np.array(outcomes.seconds) * 1e3
    answered, refused = milliseconds[statuses == OK], milliseconds[(statuses == UNAVAILABLE) | (statuses == CANCELLED)]
    late = int(((statuses == DEADLINE_EXCEEDED) | (statuses == NO_ANSWER)).sum())
    return {
        "load": load,
        "offered_per_second": round(len(statuses) / seconds),
        "answered_per_second": round(len(answered) / seconds, 1),
        "of_capacity": round(len(answered) / seconds / capacity, 3),
        "p50_ms": _percentile(answered, 50),
        "p99_ms": _percentile(answered, 99),
        "refused": len(refused),
        "by_grpc_alone": int((statuses == CANCELLED).sum()),
        "refused_p99_ms": _percentile(refused, 99),
        "late": late,
        "other": len(statuses) - len(answered) - len(refused) - late,
        "generator_waited": round(waited, 2),
    }


def _percentile(values: Any, percent: float) -> float:
    return round(float(np.percentile(values, percent)), 1) if len(values) else 0.0


def problems_of(rows: list[dict[str, Any]]) -> list[str]:
    """Return, in words, what was missed."""
    problems = []
    _, before, *overloads, after = rows
    for one, (times, share) in zip(overloads, WANTED.items(), strict=True):
        if one["of_capacity"] < share:
            problems.append(f"at {times} x it answered {one['of_capacity']:.0%} of its capacity, not {share:.0%}")
        if one["p99_ms"] > P99_TIMES_MAX * before["p99_ms"]:
            problems.append(f"at {times} x what it answered took {one['p99_ms']} ms, at 0.8 x {before['p99_ms']} ms")
        if one["refused_p99_ms"] > REFUSAL_MS_MAX:
            problems.append(f"at {times} x it took {one['refused_p99_ms']} ms to refuse")
        if one["other"]:
            problems.append(f"at {times} x {one['other']} calls ended as they never should")
    if after["of_capacity"] < 0.95 * before["of_capacity"]:
        problems.append("it did not recover")
    return problems


if __name__ == "__main__":
    main()
