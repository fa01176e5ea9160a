#!/usr/bin/env python3
"""What filters cost over gRPC: `annserve serve` with a catalogue in a real MongoDB, driven by h2load.

Similar under filters that keep from all to a thousandth of the items, each filter known to the server (warm): calls a
second, processor time a call, p50 and p99, beside the same without a filter. Each round asks about another item. Then
one call after another under filters never seen before (cold), beside a look-up of 200 ids and the filter's own query.

    .venv/bin/python loadtest/grown.py --to grown --items 1000000      # once, minutes
    .venv/bin/python loadtest/filtered_edge.py --snapshots grown [--json]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import grpc
import numpy as np
import yaml
from edge import drive, serving, write_body
from filtered import CONFIG, DATABASE, Case, loaded_cases, mongodb
from pymongo import MongoClient

from annserve.cli.output import print_json, print_rows
from annserve.domain.filter import Filter, Range
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import filter_pb2, recommendation_service_pb2
from annserve.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

CONNECTIONS, STREAMS = 4, 8
WARM_SECONDS = 120.0
COLD_CALLS = 15


def main() -> None:
    """Measure, print, leave nothing running."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, default=Path("snapshots"), help="a folder with a live snapshot")
    parser.add_argument("--uri", help="a MongoDB server to use; its database annserve_loadtest is overwritten")
    parser.add_argument("--calls", type=int, default=4_000, help="calls a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each filter, the median counts")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if shutil.which("h2load") is None:
        sys.exit("h2load is missing: `apt-get install nghttp2-client`, or `brew install nghttp2`")
    with mongodb(arguments.uri) as uri, tempfile.TemporaryDirectory() as scratch:
        warm, cold = measured(uri, Path(scratch), arguments)
    if arguments.json:
        print_json({"warm": warm, "cold": cold})
    else:
        print_rows(warm, as_json=False, title=f"Similar over gRPC, {CONNECTIONS * STREAMS} calls in flight")
        print_rows(cold, as_json=False, title="Filters never seen before, one call after another, p50 in ms")


def measured(
    uri: str, scratch: Path, arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row for each filter, warm and cold."""
    snapshot = load_current(SnapshotStore(arguments.snapshots)).snapshot
    cases = loaded_cases(snapshot, uri)
    seeds = np.random.default_rng(1).integers(0, len(snapshot.items), arguments.rounds)
    seed_ids = snapshot.items.ids(seeds)
    config = scratch / "catalog.yaml"
    fields = {name: field.type.value for name, field in CONFIG.declared().fields.items()}
    config.write_text(yaml.safe_dump({"fields": fields, "mongodb": {"database": DATABASE}}))
    annserve = shutil.which("annserve", path=str(Path(sys.executable).parent)) or "annserve"
    command = [annserve, "serve", "--snapshots", str(arguments.snapshots), "--catalog", uri, "--workers", "1"]
    # Answers are made for each call; what is measured is how.
    os.environ["ANNSERVE_ANSWER_TTL_MS"] = "0"
    rows: list[dict[str, Any]] = []
    with serving(lambda address: [*command, "--catalog-config", str(config), "--address", address]) as (address, pid):
        for case in cases:
            requests = [request(seed_id, case.filter) for seed_id in seed_ids]
            bodies = [write_body(scratch / f"body-{number}", one) for number, one in enumerate(requests)]
            wait_until_warm(address, requests)
            drive(address, pid, bodies[0], arguments.calls // 4, 1, 1)
            rounds = [drive(address, pid, body, arguments.calls, CONNECTIONS, STREAMS) for body in bodies]
            median = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
            share = median["calls_per_second"] / (rows[0]["calls_per_second"] if rows else median["calls_per_second"])
            rows.append({"passing": case.name, **median, "rate beside unfiltered": round(share, 2)})
        cold = [cold_row(address, uri, case, seed_ids) for case in cases if isinstance(case.filter, Range)]
    return rows, cold


def cold_row(address: str, uri: str, case: Case, seed_ids: list[str]) -> dict[str, Any]:
    """Ask under filters that keep the same items, each written in another way, when the one before is known."""
    seconds: list[float] = []
    look_ups: list[float] = []
    leaves: list[float] = []
    leaf = case.filter
    if not isinstance(leaf, Range):
        raise TypeError("only ranges can be written in many ways")
    with grpc.insecure_channel(address) as channel, MongoClient[dict[str, Any]](uri) as client:
        stub, items = RecommendationServiceStub(channel), client[DATABASE]["items"]
        for number in range(COLD_CALLS):
            # Values are whole numbers, so a bound a little lower keeps the same.
            bound = float(leaf.maximum or 0.0) - (number + 1) / 1_000
            asked = request(seed_ids[number % len(seed_ids)], replace(leaf, maximum=bound))
            began = time.perf_counter()
            stub.Similar(asked, timeout=10.0)
            seconds.append(time.perf_counter() - began)
            wait_until_warm(address, [asked])
            documents = list(items.aggregate([{"$sample": {"size": 200}}, {"$project": {"_id": 1}}]))
            condition = {leaf.field.path: {"$lt": bound}}
            for spent, query in (
                (look_ups, {"$and": [{"_id": {"$in": [one["_id"] for one in documents]}}, condition]}),
                (leaves, condition),
            ):
                if spent is look_ups or number < 3:
                    began = time.perf_counter()
                    list(items.find(query, {"_id": 1}, batch_size=10_000))
                    spent.append(time.perf_counter() - began)
    return {
        "passing": case.name,
        "call": round(statistics.median(seconds) * 1e3, 2),
        "look-up of 200": round(statistics.median(look_ups) * 1e3, 2),
        "leaf's own query": round(statistics.median(leaves) * 1e3, 2),
    }


def request(item_id: str, filter_: Filter | None) -> recommendation_service_pb2.SimilarRequest:
    """Return the message that asks for what is similar to ``item_id`` under ``filter_``, one of the `CASES`' ranges."""
    message = recommendation_service_pb2.SimilarRequest(item_ids=[item_id])
    if isinstance(filter_, Range):
        below = filter_pb2.FieldValue(number_value=float(filter_.maximum or 0.0))
        test = filter_pb2.FieldRange(below=below)
        message.options.filter.condition.CopyFrom(filter_pb2.FieldCondition(field=filter_.field.name, range=test))
    return message


def wait_until_warm(address: str, requests: list[recommendation_service_pb2.SimilarRequest]) -> None:
    """Ask until the filter is known as a bitmap: the answers then say how many items pass."""
    give_up = time.monotonic() + WARM_SECONDS
    with grpc.insecure_channel(address) as channel:
        stub = RecommendationServiceStub(channel)
        for one in requests:
            while not stub.Similar(one, timeout=10.0).recommendations.HasField("selectivity"):
                if time.monotonic() > give_up:
                    sys.exit("the filter's bitmap was not built in time")
                time.sleep(0.05)


if __name__ == "__main__":
    main()
