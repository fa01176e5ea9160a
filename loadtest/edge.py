#!/usr/bin/env python3
"""The performance table: what a Similar call costs, from hnswlib alone to an instance of two workers.

Without a transport: hnswlib one query at a time and a thousand at a time, and annserve's engine. On each transport,
each a server of its own on a free loopback port: an empty handler, one that does nothing but search the same graph, the
same edge as annserve's without an engine, and `annserve serve`, its answers kept and not, with one and two workers; on
grpcio also `baseline/server.py`, what one would write in an afternoon, on the same vectors.

Requests are all different, or Zipf-distributed (1.1) where answers are kept; many are in flight (throughput), then one
(latency), then half as many a second as were answered at best, at random moments. CPU is that of all threads and
processes of the server. The ceiling of a transport is an empty handler and hnswlib alone, one after another; no server
reaches it, for the two take the processor's caches from each other, and the handler that only searches says how much of
it can be had one call at a time. Where answers are kept it is an empty handler. Where there are two processors, servers
of one process have the one and the client the other.

    .venv/bin/python loadtest/edge.py --random 100000 [--transport native] [--json]

--json prints `format` (of what follows), `snapshot` (what was searched) and `rows`, each a `Row`.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import numpy as np
import numpy.typing as npt
import psutil
from bare_graph import bare_graph
from google.protobuf.message import Message
from open_loop import OK, Call, Connection, Outcomes, send_at

from annserve.cli.output import print_json, print_rows, say
from annserve.domain.model import Model
from annserve.domain.query import Mode, Query
from annserve.engine.recommender import SnapshotRecommender
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import Snapshot, load_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import recommendation_service_pb2 as messages
from annserve_client import Client

METHOD_PATH = "/annserve.v1.RecommendationService/Similar"
STAND_IN = str(Path(__file__).with_name("stand_in.py"))
BASELINE = str(Path(__file__).parent / "baseline" / "server.py")
KEPT_MS = 600_000
NO_MONGODB = "mongodb://127.0.0.1:1/"
ONE_BY_ONE = "hnswlib, one at a time"
BATCH = 1_000
FORMAT = 1
"""Of what --json prints; it changes when a name does or a row goes."""
READY_SECONDS = 600.0
"""A server of an afternoon builds its graphs when it starts, on one processor."""
ROUND_SECONDS = 120.0
ANSWERED_SHARE = 0.98
ENGINE_QUERIES = 2_000
K = 10

Command: TypeAlias = Callable[[str], list[str]]
"""From an address to what serves on it."""


def main() -> None:
    """Measure, print, leave nothing running."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, default=Path("snapshots"), help="a folder with a live snapshot")
    parser.add_argument(
        "--random", type=int, metavar="ITEMS", help="build and use a random snapshot of this many items"
    )
    parser.add_argument("--dimension", type=int, default=64, help="of the random snapshot")
    parser.add_argument("--transport", choices=["grpcio", "native"], action="append", help="else both")
    parser.add_argument("--workers", type=int, action="append", help="how many processes serve; else 1, then 2")
    parser.add_argument("--calls", type=int, default=20_000, help="calls a round with many in flight; a tenth with one")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each, the median counts")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--streams", type=int, default=8, help="calls in flight on each connection")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.snapshots
        if arguments.random:
            folder = Path(scratch) / "snapshots"
            build_snapshot(random_model(arguments.random, arguments.dimension), SnapshotStore(folder))
        report(arguments, folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table. The fields are what --json promises, all of them in every row: None has no meaning there."""

    transport: str | None
    """None: no call is made, it is a function that is called."""
    server: str
    workers: int
    calls_per_second: float
    """With many in flight; without a transport what `cpu_us_per_call` comes to on one processor."""
    cpu_us_per_call: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    alone_p50_ms: float | None = None
    half_peak_p99_ms: float | None = None
    half_peak_refused: float | None = None
    of_ceiling: float | None = None
    """The share of what could be reached at best: 1 is an edge and an engine that cost nothing."""


def report(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure the servers and the engine on the snapshot in ``folder``, and print one table."""
    store = SnapshotStore(folder)
    snapshot_id = store.current_id()
    if snapshot_id is None:
        sys.exit(f"no snapshot in {folder}: `annserve train --demo` makes one, or give --random 100000")
    snapshot = load_snapshot(store.path(snapshot_id))
    rows = rows_without_transport(snapshot)
    search_us = next((row.cpu_us_per_call for row in rows if row.server == ONE_BY_ONE), 0.0)
    for transport in arguments.transport or ("grpcio", "native"):
        rows += rows_of(transport, snapshot, folder, search_us, arguments)
    printed = [asdict(row) for row in rows]
    entry = snapshot.manifest.spaces.likeness
    if arguments.json:
        searched = {
            "item_count": len(snapshot.items),
            "dimension": snapshot.item_vectors.shape[1],
            "recall_at_10": entry.recall,
            "recipe": None if entry.recipe is None else asdict(entry.recipe),
        }
        print_json({"format": FORMAT, "snapshot": searched, "rows": printed})
        return
    print(f"{len(snapshot.items):,} items x {snapshot.item_vectors.shape[1]}; Similar, k {K}; recall@10 {entry.recall}")
    print(f"{entry.recipe or 'exact search, so no rows of hnswlib and no ceiling that counts it'}")
    print_rows(printed, as_json=False)


def rows_of(
    transport: str, snapshot: Snapshot, folder: Path, search_us: float, arguments: argparse.Namespace
) -> list[Row]:
    """Return the rows of one transport."""
    different, skewed = (requests_of(snapshot, arguments.calls, exponent) for exponent in (None, 1.1))
    tail = ("--transport", transport)
    annserve = shutil.which("annserve", path=str(Path(sys.executable).parent)) or "annserve"

    def served(address: str, *, workers: int, ttl_ms: int) -> list[str]:
        serve = [annserve, "serve", "--workers", str(workers), "--address", address, "--snapshots", str(folder)]
        return ["env", f"ANNSERVE_ANSWER_TTL_MS={ttl_ms}", *serve, *tail]

    rows: list[Row] = []

    def add(name: str, command: Command, *, workers: int = 1, kept: bool = False, searches: bool = False) -> None:
        say(f"{transport}: {name}, {workers} workers")
        figures = measured(command, skewed if kept else different, arguments, workers)
        cost_us = figures["cpu_us_per_call"]
        least_us = (rows[0].cpu_us_per_call if rows else cost_us) + searches * search_us
        of_ceiling = round(least_us / cost_us, 3)
        rows.append(Row(transport=transport, server=name, workers=workers, **figures, of_ceiling=of_ceiling))

    add("empty handler", lambda address: [sys.executable, STAND_IN, "empty", address, *tail])
    if snapshot.manifest.spaces.likeness.recipe is not None:
        bare = [STAND_IN, "bare", *("--snapshots", str(folder)), *tail]
        add("hnswlib behind a handler", lambda address: [sys.executable, *bare, address], searches=True)
    add("edge without engine", lambda address: [sys.executable, STAND_IN, "edge", address, *tail])
    if transport == "grpcio":
        # No call has a filter or wants metadata, so its database is not asked; nothing need be there.
        baseline = (str(folder), NO_MONGODB, "none")
        add("an afternoon's server", lambda address: [sys.executable, BASELINE, address, *baseline], searches=True)
    for workers in arguments.workers or (1, 2):
        made, kept = (functools.partial(served, workers=workers, ttl_ms=ttl_ms) for ttl_ms in (0, KEPT_MS))
        add("annserve", made, workers=workers, searches=True)
        add("annserve, answers kept, Zipf", kept, workers=workers, kept=True)
    return rows


def requests_of(snapshot: Snapshot, count: int, exponent: float | None) -> list[bytes]:
    """Return requests about items at random: uniformly, or by rank to the power of minus ``exponent``."""
    random, item_count = np.random.default_rng(0), len(snapshot.items)
    weights = None if exponent is None else np.arange(1, item_count + 1, dtype=float) ** -exponent
    rows = random.choice(item_count, count, p=None if weights is None else weights / weights.sum())
    return [messages.SimilarRequest(item_ids=[snapshot.items.id(int(row))]).SerializeToString() for row in rows]


class Asking(Connection):
    """Makes one call after another, so many at a time."""

    def __init__(self, authority: str, calls: Sequence[Call]) -> None:
        super().__init__(authority, timeout_seconds=5.0)
        self._asked = calls
        self._next_call = self._until = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ask(self, count: int, at_once: int) -> None:
        """Make ``count`` calls; `finished` is done after the last."""
        self.finished = asyncio.get_running_loop().create_future()
        self._until = self._next_call + count
        for _ in range(min(at_once, count)):
            self._ask_next()

    def _ask_next(self) -> None:
        self._next_call += 1
        self.send(self._asked[self._next_call % len(self._asked)], time.monotonic())

    def _end(self, stream: int, status: int) -> None:
        super()._end(stream, status)
        if self._next_call < self._until:
            self._ask_next()
        elif not self.under_way and not self.finished.done():
            self.finished.set_result(None)


def measured(
    command: Command, requests: Sequence[bytes], arguments: argparse.Namespace, workers: int = 1
) -> dict[str, float]:
    """Return what calls of a server of its own cost, and how long they take."""
    processors = sorted(os.sched_getaffinity(0))
    pinned = workers == 1 and len(processors) > 1
    with serving(lambda address: [*(["taskset", "-c", str(processors[0])] * pinned), *command(address)]) as (
        address,
        pid,
    ):
        if pinned:
            os.sched_setaffinity(0, processors[1:])
        try:
            rounds = [asyncio.run(one_round(address, pid, requests, arguments)) for _ in range(arguments.rounds + 1)]
        finally:
            os.sched_setaffinity(0, processors)
    # The first was to warm up: imports, connections, what is kept.
    return {name: round(statistics.median(one[name] for one in rounds[1:]), 3) for name in rounds[0]}


async def one_round(
    address: str, pid: int, requests: Sequence[bytes], arguments: argparse.Namespace
) -> dict[str, float]:
    """Return the figures of one round: many calls in flight, one, and calls at random moments."""
    host, _, port = address.rpartition(":")
    loop, each = asyncio.get_running_loop(), arguments.calls // arguments.connections
    callers, calls = [], [Call(METHOD_PATH, request) for request in requests]
    for number in range(arguments.connections):
        begin = functools.partial(Asking, address, [*calls[number * each :], *calls[: number * each]])
        _, caller = await loop.create_connection(begin, host, int(port))
        callers.append(caller)
    await asyncio.sleep(0.1)  # The server's settings arrive.
    cpu_before, before = cpu_seconds(pid), time.monotonic()
    for caller in callers:
        caller.ask(each, arguments.streams)
    await asyncio.gather(*(caller.finished for caller in callers))
    seconds, cpu = time.monotonic() - before, cpu_seconds(pid) - cpu_before
    many = taken(callers)
    callers[0].ask(arguments.calls // 10, 1)
    await callers[0].finished
    one = taken(callers)
    rate = len(many) / seconds
    gaps = np.random.default_rng(1).exponential(2.0 / rate, round(rate))
    half = await send_at(callers, itertools.cycle(calls), np.cumsum(gaps).tolist())
    answered = [seconds for seconds, status in zip(half.seconds, half.statuses, strict=True) if status == OK]
    for caller in callers:
        caller.close()
    return {
        "calls_per_second": rate,
        "cpu_us_per_call": cpu / len(many) * 1e6,
        "p50_ms": float(np.percentile(many, 50)),
        "p99_ms": float(np.percentile(many, 99)),
        "alone_p50_ms": float(np.percentile(one, 50)),
        "half_peak_p99_ms": float(np.percentile(answered, 99)) * 1e3,
        "half_peak_refused": 1.0 - len(answered) / len(half.statuses),
    }


def taken(callers: Sequence[Connection]) -> npt.NDArray[np.float64]:
    """Return how long the calls took that ended since the last look, in milliseconds; all must have been answered."""
    joined = Outcomes()
    for caller in callers:
        joined.statuses += caller.outcomes.statuses
        joined.seconds += caller.outcomes.seconds
        caller.outcomes = Outcomes()
    if bad := [status for status in joined.statuses if status != OK]:
        raise RuntimeError(f"{len(bad)} of {len(joined.statuses)} calls were not answered: status {bad[0]}")
    return np.array(joined.seconds) * 1e3


@contextmanager
def serving(command: Command) -> Iterator[tuple[str, int]]:
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


def rows_without_transport(snapshot: Snapshot) -> list[Row]:
    """Return what hnswlib, where a graph is searched, and the engine take for the same questions, called directly."""
    recommender = SnapshotRecommender(snapshot)
    rows = np.random.default_rng(1).integers(0, len(snapshot.items), ENGINE_QUERIES)
    queries = [Query(mode=Mode.SIMILAR, item_ids=(snapshot.items.id(int(row)),)) for row in rows]
    taken = {}
    bare = bare_graph(snapshot)
    if bare is not None:
        index, asked = bare[0], bare[1][rows]
        # One more than asked for, as the engine has to: the seed finds itself.
        search = functools.partial(index.knn_query, k=K + 1, num_threads=1)
        taken[ONE_BY_ONE] = _microseconds(search, list(asked))
        batches = np.split(asked, len(asked) // BATCH)
        taken[f"hnswlib, {BATCH:,} at a time"] = _microseconds(search, batches) / BATCH
    taken["annserve's engine, no server"] = _microseconds(recommender.recommend, queries)
    return [
        Row(
            transport=None,
            server=name,
            workers=1,
            calls_per_second=round(1e6 / microseconds, 3),
            cpu_us_per_call=round(microseconds, 3),
        )
        for name, microseconds in taken.items()
    ]


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


def write_body(path: Path, request: Message) -> Path:
    """Write one call's bytes, with gRPC's five byte prefix, for h2load to send over and over."""
    message = request.SerializeToString()
    path.write_bytes(b"\x00" + len(message).to_bytes(4, "big") + message)
    return path


def drive(
    address: str, pid: int, body: Path, calls: int, connections: int, streams: int, path: str = METHOD_PATH
) -> dict[str, float]:
    """Return what ``calls`` calls of the method at ``path`` cost the process ``pid``, and how long each took."""
    log = body.with_suffix(".log")
    log.unlink(missing_ok=True)
    answer_bytes = _h2load(address, path, body, "-n", "1")
    options = ("-n", str(calls), "-c", str(connections), "-m", str(streams), "--log-file", str(log))
    cpu_before, before = cpu_seconds(pid), time.monotonic()
    data_bytes = _h2load(address, path, body, *options)
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


def _h2load(address: str, path: str, body: Path, *options: str) -> int:
    """Return how many bytes of messages answered."""
    command = ["h2load", *options, "-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"]
    command.append(f"http://{address}{path}")
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
    """Return the processor time of the median of three passes over ``inputs``, per input, after one to warm up."""
    passes = []
    for _ in range(4):
        before = time.thread_time()
        for value in inputs:
            work(value)
        passes.append((time.thread_time() - before) / len(inputs) * 1e6)
    return statistics.median(passes[1:])


if __name__ == "__main__":
    main()
