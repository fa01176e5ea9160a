#!/usr/bin/env python3
"""annserve beside what one would write in an afternoon (`server.py`): the same vectors, catalogue, machine and load.

Similar, k 10, about any item, from none to few items passing a filter, 32 calls in flight: calls a second, processor
time a call of all processes of the server, and whether the answers are any good: recall@10 against exact search of the
same kind (cosine there, likeness here), and the share of answers that are as long as they could be.

    .venv/bin/python loadtest/baseline/compare.py --snapshots FOLDER [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
# The load tests' own modules, and the tests' MongoDB; they are no packages.
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import grpc
import numpy as np
import yaml
from catalog_faults import snapshots_in
from edge import cpu_seconds, serving
from mongod import Mongod
from open_loop import OK, Call, connect, keep_busy
from samples import percentile
from scenarios import CATALOGUE_FIELDS, PRICE_MAX, call_of, catalogue_lines, ids_drawn, price_below, uniform
from skewed import DATABASE, load_catalogue

from annserve.cli.output import print_rows, say
from annserve.domain.arrays import Vectors
from annserve.snapshot.snapshot import Snapshot, load_current
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import recommendation_pb2
from annserve.v1 import recommendation_service_pb2 as messages
from annserve.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

K = 10
BELOW = (None, 50, 10, 1)
"""Filters: the price that items must not reach; what share pass is this over `PRICE_MAX`."""
CONNECTIONS, IN_FLIGHT = 16, 2
WARM_UP_SECONDS = 3.0
JUDGED_CALLS = 200


def main() -> None:
    """Measure, print, leave nothing running."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, help="a folder with a live snapshot; by default the demo's")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        snapshots_in(arguments.snapshots, Path(scratch)) as folder,
        Mongod() as mongod,
    ):
        rows = compared(folder, mongod.uri, Path(scratch), arguments.seconds)
    print_rows(rows, as_json=arguments.json, title=f"Similar, {CONNECTIONS * IN_FLIGHT} calls in flight")


def compared(snapshots: Path, uri: str, scratch: Path, seconds: float) -> list[dict[str, Any]]:
    """Return a row for each server and filter."""
    snapshot = load_current(SnapshotStore(snapshots)).snapshot
    item_ids = snapshot.items.ids(np.arange(len(snapshot.items)))
    load_catalogue(uri, item_ids)
    prices = np.array([line["price"] for line in catalogue_lines(item_ids)])
    config = scratch / "catalog.yaml"
    config.write_text(yaml.safe_dump({"fields": dict(CATALOGUE_FIELDS), "mongodb": {"database": DATABASE}}))
    annserve = [sys.executable, "-m", "annserve.cli", "serve", "--workers", "1", "--snapshots", str(snapshots)]
    annserve += ["--catalog", uri, "--catalog-config", str(config)]
    server = [sys.executable, str(Path(__file__).with_name("server.py"))]
    servers: dict[str, Callable[[str], list[str]]] = {
        "an afternoon's": lambda address: [*server, address, str(snapshots), uri, DATABASE],
        "annserve, answers not kept": lambda address: [
            *("env", "ANNSERVE_ANSWER_TTL_MS=0", *annserve, "--address", address)
        ],
        "annserve": lambda address: [*annserve, "--address", address],
    }
    norms = np.linalg.norm(snapshot.item_vectors, axis=1, keepdims=True)
    rows = []
    for name, command in servers.items():
        say(name)
        points = snapshot.item_vectors / norms ** (1.0 if name == "an afternoon's" else snapshot.likeness_exponent)
        with serving(command) as (address, pid):
            for below in BELOW:
                costs = asyncio.run(_costs(address, pid, item_ids, below, seconds))
                quality = _quality(address, snapshot, points, prices, below)
                rows.append({"server": name, "passing": f"{below or PRICE_MAX} %"} | costs | quality)
    return rows


async def _costs(
    address: str, pid: int, item_ids: Sequence[str], below: float | None, seconds: float
) -> dict[str, Any]:
    connections = await connect(address, CONNECTIONS, timeout_seconds=5.0)
    asked = _calls(item_ids, below)
    await keep_busy(connections, asked, IN_FLIGHT, WARM_UP_SECONDS)
    before = cpu_seconds(pid)
    outcomes = await keep_busy(connections, asked, IN_FLIGHT, seconds)
    cpu = cpu_seconds(pid) - before
    for connection in connections:
        connection.close()
    milliseconds = np.array(outcomes.seconds) * 1e3
    answered = outcomes.statuses.count(OK)
    return {
        "calls/s": round(answered / seconds),
        "failed": len(milliseconds) - answered,
        "CPU us a call": round(cpu / answered * 1e6),
        "p50 ms": percentile(milliseconds, 50),
        "p99 ms": percentile(milliseconds, 99),
    }


def _calls(item_ids: Sequence[str], below: float | None) -> Iterator[Call]:
    for item_id in ids_drawn(uniform, item_ids, np.random.default_rng(0)):
        yield call_of(_request(item_id, below))


def _request(item_id: str, below: float | None) -> messages.SimilarRequest:
    options = None if below is None else recommendation_pb2.RecommendOptions(filter=price_below(below))
    return messages.SimilarRequest(item_ids=[item_id], options=options)


def _quality(address: str, snapshot: Snapshot, points: Vectors, prices: Any, below: float | None) -> dict[str, float]:
    """Return what answers are worth, beside the items with the largest inner products with a seed among ``points``."""
    seeds = np.random.default_rng(3).integers(0, len(points), JUDGED_CALLS)
    allowed = np.arange(len(points)) if below is None else np.flatnonzero(prices < below)
    best = np.argsort(-snapshot.item_vectors[seeds] @ points[allowed].T, axis=1)[:, : K + 1]
    found = complete = 0.0
    with grpc.insecure_channel(address) as channel:
        stub = RecommendationServiceStub(channel)
        for seed, places in zip(seeds.tolist(), best, strict=True):
            wanted = [row for row in allowed[places].tolist() if row != seed][:K]
            results = stub.Similar(_request(snapshot.items.id(seed), below), timeout=5.0).recommendations.results
            found += len({snapshot.items.id(row) for row in wanted} & {one.item_id for one in results}) / len(wanted)
            complete += len(results) == len(wanted)
    return {"recall@10": round(found / JUDGED_CALLS, 3), "complete": round(complete / JUDGED_CALLS, 3)}


if __name__ == "__main__":
    main()
