#!/usr/bin/env python3
"""What growth costs: building, disk, starting, memory and calls a second, from ten thousand items to millions.

Every size is grown from the same real factors (`grown.py`), built in a process of its own, and served by one worker
that keeps no answers. What has been measured is in --folder and is not measured again, nor is what was built built
again: a run that was ended goes on where it was.

    .venv/bin/python loadtest/growth.py --glove FOLDER --folder growth --sizes 10000 100000
    .venv/bin/python loadtest/growth.py --from snapshots --folder growth --sizes 10000 100000 1000000 5000000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
# The tests' own instances; they are no package.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

if find_spec("matplotlib") is None:
    sys.exit("matplotlib is missing: `make loadtest` installs it, or `pip install .[plots]`")

import numpy as np
from edge import cpu_seconds
from glove import open_glove
from grown import grown_model, model_of
from instance_trials import pss_bytes
from instances import Instance, instance
from open_loop import OK, Call, connect, keep_busy, moments_of, send_at
from plots import draw_growth
from samples import percentile
from scenarios import Population, call_of, ids_drawn, uniform

from annserve.cli.output import print_rows, say
from annserve.domain.model import Model
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import recommendation_service_pb2 as messages

CONNECTIONS, IN_FLIGHT = 16, 2
WARM_UP_SECONDS = 2.0
HALF = 0.5
GLOVE_ITEMS, GLOVE_USERS = 100_000, 1_000
COLUMNS = {
    "build s": "build, s",
    "build CPU s": "build, CPU s",
    "start s": "start, s",
    "memory MB": "memory, MB",
    "similar calls/s": "Similar, calls a second",
    "personalize calls/s": "Personalize, calls a second",
}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What building took."""

    seconds: float
    cpu_seconds: float
    """Of all threads and children: what other work on the machine changes less."""
    peak_bytes: int
    """Of memory, the growing of the factors included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """Where the real vectors are that others are grown from: one of the two."""

    snapshots: Path | None
    glove: Path | None

    def model(self) -> Model:
        """Return them."""
        if self.snapshots is not None:
            return model_of(load_current(SnapshotStore(self.snapshots)).snapshot)
        if self.glove is None:
            raise ValueError("no factors are named")
        vectors = open_glove(self.glove).vectors
        return Model(
            item_ids=[f"word-{number:06}" for number in range(GLOVE_ITEMS)],
            item_vectors=vectors[:GLOVE_ITEMS],
            user_ids=[f"user-{number:06}" for number in range(GLOVE_USERS)],
            user_vectors=vectors[GLOVE_ITEMS : GLOVE_ITEMS + GLOVE_USERS],
            # They come in the order of how often the words occur, which falls with the rank.
            popularity=np.log1p(1e4 / np.arange(1, GLOVE_ITEMS + 1)).astype(np.float32),
            popularity_weight=0.1,
            likeness_exponent=0.75,
            recent_items_max=100,
            trainer="glove",
        )


def main() -> None:
    """Build, measure, write, print; leave nothing running."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--from", dest="source", type=Path, help="a folder with a snapshot of trained factors")
    origin.add_argument("--glove", type=Path, help="the folder of glove-6b-50d: its first vectors, others as users")
    parser.add_argument("--folder", type=Path, required=True, help="for snapshots and results, kept")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], help="numbers of items")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--accept-recall", type=float, help="a recall@10 below 0.98 to put up with")
    parser.add_argument("--build-only", action="store_true", help="build what is missing, and measure another time")
    parser.add_argument("--plot", type=Path, help="where the plot goes, .svg or .png; by default into the folder")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    factors = Factors(snapshots=arguments.source, glove=arguments.glove)
    results = arguments.folder / "results.json"
    rows: dict[int, Row] = {}
    if results.exists():
        rows = {row["items"]: row for row in json.loads(results.read_text())}
    for size in sorted(arguments.sizes):
        if size in rows:
            say(f"{size:,} items: measured before; take it out of {results} to measure it again")
            continue
        root = arguments.folder / f"{size}"
        say(f"{size:,} items: building, unless it was")
        built = _built(factors, root, size, arguments.accept_recall)
        if arguments.build_only:
            continue
        say(f"{size:,} items: serving")
        rows[size] = measured(root, size, built, arguments.folder, arguments.seconds)
        # Written whole, and then named: a run that ends here loses nothing.
        draft = results.with_suffix(".draft")
        draft.write_text(json.dumps([rows[one] for one in sorted(rows)], indent=2))
        draft.replace(results)
    if arguments.build_only:
        return
    ordered = [rows[size] for size in sorted(rows)]
    draw_growth(ordered, COLUMNS, arguments.plot or arguments.folder / "growth.svg")
    print_rows(ordered, as_json=arguments.json, title="one worker, answers not kept")


def _built(factors: Factors, root: Path, size: int, accept_recall: float | None) -> Built:
    """Return what it took to build a snapshot of ``size`` items in ``root``: now, or when it was."""
    root.mkdir(parents=True, exist_ok=True)
    note = root / "built.json"
    if SnapshotStore(root).current_id() is None or not note.exists():
        # A process of its own, so that its memory is its own, and gone afterwards.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            built = process.submit(_build, factors, root, size, accept_recall).result()
        note.write_text(json.dumps(asdict(built)))
    return Built(**json.loads(note.read_text()))


def _build(factors: Factors, root: Path, size: int, accept_recall: float | None) -> Built:
    began = time.monotonic()
    model = grown_model(factors.model(), size)
    say(f"{size:,} items, {len(model.user_ids):,} users: grown after {time.monotonic() - began:.0f} s")
    began, cpu_began, told = time.monotonic(), _cpu_seconds(), ""

    def tell(stage: str, done: int, total: int | None) -> None:  # noqa: ARG001 - as it is called
        nonlocal told
        if stage != told:
            told = stage
            say(f"  {time.monotonic() - began:.0f} s, CPU {_cpu_seconds() - cpu_began:.0f} s: {stage}")

    build_snapshot(model, SnapshotStore(root), accept_recall=accept_recall, progress=tell)
    return Built(
        seconds=time.monotonic() - began,
        cpu_seconds=_cpu_seconds() - cpu_began,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _cpu_seconds() -> float:
    """Return the processor time of this process, all its threads, and the children it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measured(root: Path, size: int, built: Built, folder: Path, seconds: float) -> Row:
    """Return what serving the snapshot in ``root`` comes to."""
    snapshot = load_current(SnapshotStore(root)).snapshot
    spaces, disk_bytes = snapshot.manifest.spaces, sum(file.size_bytes for file in snapshot.manifest.files.values())
    population, user_count = Population.of(snapshot, items_max=100_000), len(snapshot.users)
    del snapshot
    began = time.monotonic()
    with instance(root, folder, workers=1, ANNSERVE_ANSWER_TTL_MS="0") as running:
        start_seconds, start_cpu_seconds = time.monotonic() - began, cpu_seconds(running.process.pid)
        similar = asyncio.run(_loaded(running, _similar(population), seconds))
        personalize = asyncio.run(_loaded(running, _personalize(population), seconds))
        memory = sum(pss_bytes(running).values())
    return {
        "items": size,
        "users": user_count,
        "build s": round(built.seconds, 1),
        "build CPU s": round(built.cpu_seconds, 1),
        "build peak MB": round(built.peak_bytes / 1e6),
        "disk MB": round(disk_bytes / 1e6, 1),
        "start s": round(start_seconds, 2),
        "start CPU s": round(start_cpu_seconds, 2),
        "memory MB": round(memory / 1e6, 1),
        **{f"similar {name}": value for name, value in similar.items()},
        **{f"personalize {name}": value for name, value in personalize.items()},
        **{
            f"{name} by": f"{entry.path.value}, recall {entry.recall:.3f}"
            for name, entry in (("similar", spaces.likeness), ("personalize", spaces.affinity))
        },
    }


async def _loaded(running: Instance, calls: Iterator[Call], seconds: float) -> Row:
    """Return calls a second and their cost in a closed loop, and p99 in an open one at half of that."""
    connections = await connect(running.address, CONNECTIONS, timeout_seconds=5.0)
    await keep_busy(connections, calls, IN_FLIGHT, WARM_UP_SECONDS)
    cpu_before = cpu_seconds(running.process.pid)
    busy = await keep_busy(connections, calls, IN_FLIGHT, seconds)
    cpu = cpu_seconds(running.process.pid) - cpu_before
    peak = busy.statuses.count(OK) / seconds
    half = await send_at(connections, calls, moments_of(HALF * peak, seconds, np.random.default_rng(0)))
    for connection in connections:
        connection.close()
    return {
        "calls/s": round(peak),
        "CPU us": round(cpu / max(peak * seconds, 1) * 1e6),
        "p99 ms at half": percentile(np.array(half.seconds) * 1e3, 99),
        "failed": sum(status != OK for status in busy.statuses + half.statuses),
    }


def _similar(population: Population) -> Iterator[Call]:
    for item_id in ids_drawn(uniform, population.item_ids, np.random.default_rng(0)):
        yield call_of(messages.SimilarRequest(item_ids=[item_id]))


def _personalize(population: Population) -> Iterator[Call]:
    for user_id in ids_drawn(uniform, population.user_ids, np.random.default_rng(0)):
        yield call_of(messages.PersonalizeRequest(user_id=user_id))


if __name__ == "__main__":
    main()
