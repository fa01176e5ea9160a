#!/usr/bin/env python3
"""Where the processor time of one made answer goes, in microseconds, by the room of the house that spends it.

A server answers Similar in this process, nothing kept, while another process asks, so many calls in flight. Every
millisecond of processor time the stack of the event loop's thread is looked at: the innermost frame of annserve's own
says who is at work, and has what that thread took since the look before. What other threads took is told apart.

    .venv/bin/python loadtest/profile_call.py --snapshots FOLDER [--transport native] [--calls 20000] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
# As in a worker, which forks nobody.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from edge import METHOD_PATH, Asking, requests_of, taken
from open_loop import Call

from annserve.cli.composition import opened_service
from annserve.cli.output import print_json, print_rows
from annserve.service.metrics import Metrics, share_metrics
from annserve.service.server import Server
from annserve.service.settings import ServerSettings
from annserve.settings import Settings
from annserve.snapshot.snapshot import Snapshot, load_current
from annserve.snapshot.store import SnapshotStore

LOOK_SECONDS = 0.001
CONNECTIONS, IN_FLIGHT = 4, 8

STAGES = (
    ("search/graph.py", "hnswlib"),
    ("search/", "plan, check, sift"),
    ("domain/arrays.py", "plan, check, sift"),
    ("engine/query_vectors.py", "query vector"),
    ("snapshot/ids.py", "ids and rows"),
    ("engine/live_items.py", "ids and rows"),
    ("engine/", "rest of the engine"),
    ("service/attribution.py", "attribution token"),
    ("service/convert.py:write", "write the answer"),
    ("service/answers.py:write_answer", "write the answer"),
    ("service/answers.py:answer_into", "write the answer"),
    ("service/calls.py:encode", "write the answer"),
    ("service/similar.py:PlainSimilar._encoded", "write the answer"),
    ("service/similar.py:PlainSimilar._begun", "write the answer"),
    ("service/similar.py", "read the request"),
    ("service/calls.py", "read the request"),
    ("service/checks.py", "read the request"),
    ("service/convert.py", "read the request"),
    ("service/limits.py", "read the request"),
    ("domain/ids.py", "read the request"),
    ("service/metrics.py", "metrics"),
    ("service/native_transport.py", "transport, loop"),
    ("", "handling: admission, deadline, log, plan of what is kept"),
)
"""By the beginning of ``file:qualified name`` within the package; the first that fits."""
OUTSIDE = "transport, loop"
NATIVE = "native threads"
ALL = "all"
PACKAGE = "/annserve/"


class Looks:
    """Notes who is at work when the processor's clock says so."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._looked_at = 0.0

    def look(self, _signal: int, frame: FrameType | None) -> None:
        """Give the stage of ``frame`` the processor time of this thread since the last look."""
        now = time.thread_time()
        self.seconds[stage_of(frame)] += now - self._looked_at
        self._looked_at = now

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look, by the time that all threads of this process take."""
        self._looked_at = time.thread_time()
        signal.signal(signal.SIGPROF, self.look)
        # Native threads are not to notice.
        signal.siginterrupt(signal.SIGPROF, False)
        signal.setitimer(signal.ITIMER_PROF, LOOK_SECONDS, LOOK_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0.0)


def stage_of(frame: FrameType | None) -> str:
    """Return what the innermost frame of the package's own belongs to."""
    while frame is not None:
        code = frame.f_code
        _, package, file = code.co_filename.rpartition(PACKAGE)
        if package and "/site-packages/" not in code.co_filename:
            place = f"{file}:{code.co_qualname}"
            return next(stage for beginning, stage in STAGES if place.startswith(beginning))
        frame = frame.f_back
    return OUTSIDE


def main() -> None:
    """Measure, print, leave nothing running."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, default=Path("snapshots"), help="a folder with a live snapshot")
    parser.add_argument("--transport", choices=["grpcio", "native"], action="append", help="else both")
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    snapshot = load_current(SnapshotStore(arguments.snapshots)).snapshot
    columns = {}
    with tempfile.TemporaryDirectory() as scratch:
        share_metrics(Path(scratch), "profile")
        for transport in arguments.transport or ("grpcio", "native"):
            columns[transport] = asyncio.run(profiled(snapshot, transport, arguments.calls, Metrics()))
    stages = [*dict.fromkeys(stage for _, stage in STAGES), NATIVE, ALL]
    rows = [
        {"stage": stage, **{f"{name}, us": round(column.get(stage, 0.0), 1) for name, column in columns.items()}}
        for stage in stages
        if any(column.get(stage) for column in columns.values())
    ]
    if arguments.json:
        print_json(rows)
    else:
        print_rows(rows, as_json=False, title=f"Similar, {len(snapshot.items):,} items, nothing kept; CPU a call")


async def profiled(snapshot: Snapshot, transport: Any, calls: int, metrics: Metrics) -> dict[str, float]:
    """Return the microseconds of each stage, and of all."""
    requests = requests_of(snapshot, calls, None)
    settings = ServerSettings(address="127.0.0.1:0", transport=transport, answer_ttl_ms=0, personal_answer_ttl_ms=0)
    looks, loop = Looks(), asyncio.get_running_loop()
    processors = sorted(os.sched_getaffinity(0))
    # Elsewhere than this process and the threads that it is going to have, where there is somewhere else.
    pool = ProcessPoolExecutor(1, get_context("spawn"), os.sched_setaffinity, (0, processors[1:] or processors))
    os.sched_setaffinity(0, processors[:1])
    async with opened_service(snapshot, Settings(), None, metrics=metrics) as served:
        server = Server(settings, served.recommender, metrics=metrics, events=served.events, similar=served.similar)
        address = await server.start()
        with pool:
            await loop.run_in_executor(pool, ask, address, requests[: calls // 4])
            with looks.looking():
                began, own = time.process_time(), time.thread_time()
                await loop.run_in_executor(pool, ask, address, requests)
                all_seconds, own_seconds = time.process_time() - began, time.thread_time() - own
        await server.stop()
    os.sched_setaffinity(0, processors)
    seconds = {**looks.seconds, NATIVE: all_seconds - own_seconds, ALL: all_seconds}
    return {stage: one / calls * 1e6 for stage, one in seconds.items()}


def ask(address: str, requests: Sequence[bytes]) -> None:
    """Make all the calls, so many at a time; raises RuntimeError unless all are answered."""
    asyncio.run(_ask(address, requests))


async def _ask(address: str, requests: Sequence[bytes]) -> None:
    host, _, port = address.rpartition(":")
    loop, callers = asyncio.get_running_loop(), []
    calls = [Call(METHOD_PATH, request) for request in requests]
    for number in range(CONNECTIONS):
        begin = functools.partial(Asking, address, calls[number::CONNECTIONS])
        callers.append((await loop.create_connection(begin, host, int(port)))[1])
    for caller in callers:
        caller.ask(len(requests) // CONNECTIONS, IN_FLIGHT)
    await asyncio.gather(*(caller.finished for caller in callers))
    taken(callers)
    for caller in callers:
        caller.close()


if __name__ == "__main__":
    main()
