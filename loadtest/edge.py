#!/usr/bin/env python3
"""What a Similar call costs: server CPU per call (all threads), calls a second, p50 and p99, driven by h2load.

Compares `annserve serve` on a snapshot with the same edge without an engine and with an empty handler, each one process
on a free loopback port, first with many calls in flight (throughput), then with one (latency). Then measures the engine
alone, in this process, beside hnswlib called directly with the same queries.

    make serve   # once: trains on the bundled data; or --random 100000, which takes minutes to build
    .venv/bin/python loadtest/edge.py [--json]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import hnswlib
import numpy as np
import psutil

from annserve.cli.output import print_json, print_rows
from annserve.domain.model import Model
from annserve.domain.query import Mode, Query
from annserve.engine.recommender import SnapshotRecommender
from annserve.search.recipe import Reduction
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import Snapshot, load_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import recommendation_service_pb2 as messages
from annserve_client import Client

METHOD_PATH = "/annserve.v1.RecommendationService/Similar"
STAND_IN = str(Path(__file__).with_name("stand_in.py"))
READY_SECONDS = 60.0
ROUND_SECONDS = 120.0
ANSWERED_SHARE = 0.98
ENGINE_QUERIES = 2_000
K = 10


def main() -> None:
    """Measure, print, leave nothing running."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, default=Path("snapshots"), help="a folder with a live snapshot")
    parser.add_argument(
        "--random", type=int, metavar="ITEMS", help="build and use a random snapshot of this many items"
    )
    parser.add_argument("--dimension", type=int, default=64, help="of the random snapshot")
    parser.add_argument("--calls", type=int, default=20_000, help="calls a round with many in flight; a tenth with one")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each, the median counts")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--streams", type=int, default=8, help="calls in flight on each connection")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if shutil.which("h2load") is None:
        sys.exit("h2load is missing: `apt-get install nghttp2-client`, or `brew install nghttp2`")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.snapshots
        if arguments.random:
            folder = Path(scratch) / "snapshots"
            build_snapshot(random_model(arguments.random, arguments.dimension), SnapshotStore(folder))
        report(arguments, folder, Path(scratch))


def report(arguments: argparse.Namespace, folder: Path, scratch: Path) -> None:
    """Measure the servers and the engine on the snapshot in ``folder``, and print both."""
    store = SnapshotStore(folder)
    snapshot_id = store.current_id()
    if snapshot_id is None:
        sys.exit(f"no snapshot in {folder}: `annserve train --demo` makes one, or give --random 100000")
    snapshot = load_snapshot(store.path(snapshot_id))
    seeds = np.random.default_rng(0).integers(0, len(snapshot.items), arguments.rounds)
    requests = [messages.SimilarRequest(item_ids=[snapshot.items.id(int(row))]) for row in seeds]
    bodies = [write_body(scratch / f"body-{number}", request) for number, request in enumerate(requests)]
    annserve = shutil.which("annserve", path=str(Path(sys.executable).parent)) or "annserve"
    servers: dict[str, Callable[[str], list[str]]] = {
        "empty handler": lambda address: [sys.executable, STAND_IN, "empty", address],
        "edge without engine": lambda address: [sys.executable, STAND_IN, "edge", address],
        "annserve serve": lambda address: [
            *("env", "ANNSERVE_ANSWER_TTL_MS=0", annserve, "serve", "--workers", "1"),
            *("--address", address, "--snapshots", str(folder)),
        ],
        "annserve serve, answers kept": lambda address: [
            *(annserve, "serve", "--workers", "1", "--address", address, "--snapshots", str(folder)),
        ],
    }
    calls = [measured(name, command, bodies, arguments) for name, command in servers.items()]
    rows = [row for pair in calls for row in pair]
    engine = engine_us(snapshot)
    if arguments.json:
        shape = {"item_count": len(snapshot.items), "dimension": snapshot.item_vectors.shape[1]}
        print_json({"snapshot": shape, "calls": rows, "engine": engine})
        return
    print(f"snapshot of {len(snapshot.items):,} items, {snapshot.item_vectors.shape[1]} dimensions; Similar, k {K}")
    print_rows(rows, as_json=False)
    print_rows([engine], as_json=False)


def measured(
    name: str, command: Callable[[str], list[str]], bodies: Sequence[Path], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return one row with many calls in flight and one with a single call, from a server of its own."""
    rows = []
    with serving(command) as (address, pid):
        drive(address, pid, bodies[0], 1_000, 1, 1)  # Warm-up: imports, first connections.
        for calls, connections, streams in (
            (arguments.calls, arguments.connections, arguments.streams),
            (arguments.calls // 10, 1, 1),
        ):
            rounds = [drive(address, pid, body, calls, connections, streams) for body in bodies]
            median = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
            rows.append({"server": name, "in_flight": connections * streams, **median})
    return rows


@contextmanager
def serving(command: Callable[[str], list[str]]) -> Iterator[tuple[str, int]]:
    """Run a server on a free loopback port until it is not needed any more; gives its address and process id."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with tempfile.TemporaryFile("w+") as errors:
        elsewhere = {"ANNSERVE_OPS_ADDRESS": "127.0.0.1:0", "ANNSERVE_ADMIN_ADDRESS": "127.0.0.1:0"}
        process = subprocess.Popen(command(address), stderr=errors, env=os.environ | elsewhere)
        try:
            _wait_until_ready(address, process)
            with Client(address, timeout_seconds=READY_SECONDS) as client:
                client.similar(["any"])
            yield address, process.pid
        except Exception:
            errors.seek(0)
            sys.stderr.write(errors.read())
            raise
        finally:
            process.terminate()
            process.wait(READY_SECONDS)


def _wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + READY_SECONDS
    with grpc.insecure_channel(address) as channel:
        ready = grpc.channel_ready_future(channel)
        while True:
            try:
                ready.result(1.0)
                return
            except grpc.FutureTimeoutError:
                if process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError(f"no server on {address}; what it said is above") from None


def engine_us(snapshot: Snapshot) -> dict[str, float]:
    """Return microseconds per Similar: the engine, hnswlib alone with the same queries, and the difference."""
    recommender = SnapshotRecommender(snapshot)
    rows = np.random.default_rng(1).integers(0, len(snapshot.items), ENGINE_QUERIES)
    queries = [Query(mode=Mode.SIMILAR, item_ids=(snapshot.items.id(int(row)),)) for row in rows]
    engine = _microseconds(recommender.recommend, queries)
    found = {"engine_us": engine}
    entry = snapshot.manifest.spaces.likeness
    if entry.recipe is not None:
        augmented = entry.recipe.reduction is Reduction.AUGMENTED_L2
        vectors = snapshot.item_vectors[rows]
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        if augmented:
            units = np.hstack([units, np.zeros((len(units), 1), np.float32)])
        index = hnswlib.Index(space="l2" if augmented else "ip", dim=units.shape[1])
        index.load_index(str(snapshot.path / "likeness.hnsw"))
        index.set_ef(entry.recipe.ef_search)
        # One more than asked for, as the engine has to: the seed finds itself.
        found["hnswlib_us"] = _microseconds(lambda query: index.knn_query(query, K + 1, num_threads=1), list(units))
        found["engine_without_hnswlib_us"] = engine - found["hnswlib_us"]
    return {name: round(value, 1) for name, value in found.items()}


def random_model(item_count: int, dimension: int) -> Model:
    """Return vectors whose spectrum falls as that of trained factors does."""
    random = np.random.default_rng(0)
    spectrum = (1.0 / np.sqrt(np.arange(1, dimension + 1))).astype(np.float32)
    return Model(
        item_ids=[f"item-{number:07}" for number in range(item_count)],
        item_vectors=random.standard_normal((item_count, dimension), dtype=np.float32) * spectrum,
        user_ids=[],
        user_vectors=np.empty((0, dimension), np.float32),
        popularity=np.log1p(random.exponential(5.0, item_count)).astype(np.float32),
        popularity_weight=0.1,
        likeness_exponent=0.75,
        recent_items_max=100,
        trainer="random",
    )


def write_body(path: Path, request: messages.SimilarRequest) -> Path:
    """Write one call's bytes, with gRPC's five byte prefix, for h2load to send over and over."""
    message = request.SerializeToString()
    path.write_bytes(b"\x00" + len(message).to_bytes(4, "big") + message)
    return path


def drive(address: str, pid: int, body: Path, calls: int, connections: int, streams: int) -> dict[str, float]:
    """Return what ``calls`` calls cost the process ``pid``, and how long each took."""
    log = body.with_suffix(".log")
    log.unlink(missing_ok=True)
    answer_bytes = _h2load(address, body, "-n", "1")
    options = ("-n", str(calls), "-c", str(connections), "-m", str(streams), "--log-file", str(log))
    cpu_before, before = cpu_seconds(pid), time.monotonic()
    data_bytes = _h2load(address, body, *options)
    seconds, cpu = time.monotonic() - before, cpu_seconds(pid) - cpu_before
    # Each line: start, HTTP status, duration in microseconds.
    lines = [line.split() for line in log.read_text().splitlines()]
    if len(lines) != calls or any(status != "200" for _, status, _ in lines):
        raise RuntimeError(f"{sum(line[1] == '200' for line in lines)} of {calls} calls were answered")
    # An error of gRPC's is a 200 too, without data. Answers differ by some bytes: their age is in them.
    if data_bytes < ANSWERED_SHARE * calls * answer_bytes:
        raise RuntimeError(f"about {1 - data_bytes / calls / answer_bytes:.0%} of {calls} calls ended with an error")
    milliseconds = np.array([int(duration) for _, _, duration in lines]) / 1_000
    return {
        "calls_per_second": round(calls / seconds),
        "cpu_us_per_call": round(cpu / calls * 1e6, 1),
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 3),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 3),
    }


def _h2load(address: str, body: Path, *options: str) -> int:
    """Return how many bytes of messages answered."""
    command = ["h2load", *options, "-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"]
    command.append(f"http://{address}{METHOD_PATH}")
    told = subprocess.run(command, check=True, capture_output=True, timeout=ROUND_SECONDS, text=True).stdout
    found = re.search(r"^traffic: .* \((\d+)\) data$", told, re.MULTILINE)
    if found is None or found[1] == "0":
        raise RuntimeError(f"h2load had no answer:\n{told}")
    return int(found[1])


def cpu_seconds(pid: int) -> float:
    """Return the processor time that ``pid`` and its descendants have used, in user and kernel mode."""
    first = psutil.Process(pid)
    times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def _microseconds(work: Callable[[Any], object], inputs: Sequence[Any]) -> float:
    """Return the median of three passes over ``inputs``, per input, after one to warm up."""
    passes = []
    for _ in range(4):
        before = time.perf_counter()
        for value in inputs:
            work(value)
        passes.append((time.perf_counter() - before) / len(inputs) * 1e6)
    return statistics.median(passes[1:])


if __name__ == "__main__":
    main()
