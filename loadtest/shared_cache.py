#!/usr/bin/env python3
"""The cache of an instance, between real processes: what it costs, and what it is worth when they die.

    python loadtest/shared_cache.py costs     # CPU microseconds of each step, and of an answer with and without
    python loadtest/shared_cache.py expiry    # 64 clients x 4 workers at each of 1,000 expiries of one key
    python loadtest/shared_cache.py takeover  # a worker killed while it makes what another waits for
    python loadtest/shared_cache.py kills     # 300 kills of writers and workers in the middle of their work

Each prints its figures, and fails when one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

# What the tests stand their processes up with.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from cache_process import CacheProcess
from catalog_faults import snapshots_in

from annserve.cache.entries import Entry
from annserve.cache.shared import SharedCache
from annserve.cache.shared_store import SharedStore
from annserve.cache.shared_writer import BYTES_MIN
from annserve.cli.output import print_rows, say
from annserve.domain.deadline import NO_DEADLINE
from annserve.engine.plain_recommender import PlainRecommender
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench
from annserve.service.answers import Answers
from annserve.service.servicer import METHODS
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import recommendation_service_pb2 as messages

ONCE_MIN = 0.99
TAKEOVER_MS_MAX = 250.0
HIT_PART_MAX = 0.5
PROCESSES = 4

Argument = TypeVar("Argument")


def main() -> int:
    """Measure what is asked for; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("costs", "expiry", "takeover", "kills"))
    parser.add_argument("--rounds", type=int, help="expiries, takeovers or kills")
    parser.add_argument("--period", type=float, default=0.1, help="seconds between expiries")
    arguments = parser.parse_args()
    folder = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a folder of its own is made in it
    with tempfile.TemporaryDirectory(prefix="annserve-loadtest-", dir=folder) as name:
        match arguments.what:
            case "costs":
                return asyncio.run(costs(Path(name)))
            case "expiry":
                return expiry(Path(name), arguments.rounds or 1_000, arguments.period)
            case "takeover":
                return takeover(Path(name), arguments.rounds or 30)
            case _:
                return kills(Path(name), arguments.rounds or 300)


async def costs(folder: Path) -> int:
    """Time each step, one after the other in one process; the writer is another."""
    with CacheProcess("writer", folder, 64 << 20):
        store, value, now = SharedStore(folder), b"v" * 600, time.monotonic()
        entries = [Entry(b"key-%d" % number, value, 0, now, now + 1e3, now + 1e3) for number in range(1_000)]
        rows = [{"step": "send an entry of 600 bytes", "us": _us(store.put, entries, pause_every=20)}]
        await asyncio.sleep(0.1)
        missing = [entry.key for entry in entries if store.get(entry.key) is None]
        keys = [entry.key for entry in entries]
        rows += [
            {"step": "find it in shared memory", "us": _us(store.get, keys)},
            {"step": "find that there is none", "us": _us(store.get, [b"no-" + key for key in keys])},
        ]
        store.close()
        cache = SharedCache(folder)
        for key in keys:
            cache.get(key)
        rows.append({"step": "find it in the worker", "us": _us(cache.get, keys)})
        cache.close()
        with snapshots_in(None, folder) as snapshots:
            snapshot = load_current(SnapshotStore(snapshots)).snapshot
        with ThreadPoolExecutor(1) as executor:
            recommender = PlainRecommender(SnapshotRecommender(snapshot), Workbench(executor))
            requests = [
                messages.SimilarRequest(item_ids=[snapshot.items.id(row)]).SerializeToString() for row in range(1_000)
            ]
            similar, cache = METHODS[0], SharedCache(folder)
            plain, kept = Answers(recommender), Answers(recommender, cache)
            made_us = await _us_each(lambda data: plain.answer(similar, data, NO_DEADLINE), requests)
            first_us = await _us_each(lambda data: kept.answer(similar, data, NO_DEADLINE), requests, pause_every=20)
            await asyncio.sleep(0.2)
            hit_us = await _us_each(lambda data: kept.answer(similar, data, NO_DEADLINE), requests)
            cache.close()
            cache = SharedCache(folder)
            other = Answers(recommender, cache)
            instance_us = await _us_each(lambda data: other.answer(similar, data, NO_DEADLINE), requests)
            found = cache.counts.instance_hits
            cache.close()
    rows += [
        {"step": "answer, nothing kept (Similar, 10 items)", "us": made_us},
        {"step": "answer made and kept", "us": first_us},
        {"step": "answer another worker made", "us": instance_us},
        {"step": "answer this worker has", "us": hit_us},
    ]
    print_rows(rows, as_json=False)
    say(f"entries that did not arrive: {len(missing)} of 1,000; answers found of another worker: {found} of 1,000")
    return int(hit_us > HIT_PART_MAX * made_us or found < 900)


def expiry(folder: Path, rounds: int, period: float) -> int:
    """Let one key expire again and again under the eyes of many clients of many workers."""
    with CacheProcess("writer", folder, BYTES_MIN):
        workers = [CacheProcess("worker", folder) for _ in range(PROCESSES)]
        begin = time.monotonic() + 0.5
        for worker in workers:
            worker.begin(do="rounds", key="k", start=begin, count=rounds, period=period, clients=64, ttl=0.7 * period)
        rounds_of_workers = zip(*(worker.heard() for worker in workers), strict=True)
        made = [sum(computed for computed, _ in one) for one in rounds_of_workers]
        for worker in workers:
            worker.end()
    once = sum(times == 1 for times in made) / rounds
    say(f"{rounds} expiries, {64 * PROCESSES} who ask: made once in {once:.1%}, at most {max(made)} times")
    return int(once < ONCE_MIN)


def takeover(folder: Path, rounds: int) -> int:
    """Kill the worker that makes a value while another waits for it."""
    took_ms = []
    with CacheProcess("writer", folder, BYTES_MIN), CacheProcess("worker", folder) as follower:
        for number in range(rounds):
            with CacheProcess("worker", folder) as leader:
                leader.begin(do="ask", key=f"k{number}", compute_ms=60_000)
                while not follower.tell(do="is_locked", key=f"k{number}"):
                    time.sleep(0.001)
                follower.begin(do="ask", key=f"k{number}", clients=64)
                time.sleep(0.05)
                killed = time.monotonic()
                leader.kill()
            follower.heard()
            took_ms.append((time.monotonic() - killed) * 1e3)
    took_ms.sort()
    say(f"{rounds} takeovers: median {took_ms[rounds // 2]:.0f} ms, longest {took_ms[-1]:.0f} ms, the kill included")
    return int(took_ms[-1] > TAKEOVER_MS_MAX)


def kills(folder: Path, rounds: int) -> int:
    """Kill the writer and workers while they write and read values that know whether they are whole."""
    seeded = random.Random(5)  # noqa: S311 - a seed of our own
    churning = {"do": "churn", "keys": 200, "size": 20_000, "seconds": 1e6}
    read = torn = 0
    running = {"writer": CacheProcess("writer", folder, BYTES_MIN), "worker": CacheProcess("worker", folder)}
    running["worker"].begin(**churning)
    with CacheProcess("worker", folder) as witness:
        for number in range(rounds):
            if number % 10 == 0:
                witness.begin(**churning | {"seconds": 2.0})
            time.sleep(seeded.uniform(0.0, 0.1))
            role = seeded.choice(("writer", "worker"))
            running[role].end()
            running[role] = CacheProcess(role, folder, *([BYTES_MIN] if role == "writer" else []))
            if role == "worker":
                running[role].begin(**churning)
            if number % 10 == 9 or number == rounds - 1:
                seen = witness.heard()
                read, torn = read + seen[0], torn + seen[1]
        started = time.monotonic()
        with CacheProcess("worker", folder) as maker:
            while witness.tell(do="get", key="after") is None and time.monotonic() < started + 10:
                maker.tell(do="put", key="after", value="v")
        stuck = witness.tell(do="get", key="after") is None
    for process in running.values():
        process.end()
    say(f"{rounds} kills: {read:,} values read, {torn} torn; afterwards the cache {'is stuck' if stuck else 'works'}")
    return int(torn > 0 or stuck or not read)


def _us(step: Callable[[Argument], object], arguments: list[Argument], pause_every: int = 0) -> float:
    spent = 0.0
    for number, argument in enumerate(arguments):
        began = time.thread_time()
        step(argument)
        spent += time.thread_time() - began
        if pause_every and number % pause_every == 0:
            time.sleep(0.002)  # The writer is to keep up: what it costs when it does not is an error.
    return round(spent / len(arguments) * 1e6, 1)


async def _us_each(answer: Callable[[bytes], Awaitable[object]], requests: list[bytes], pause_every: int = 0) -> float:
    spent = 0.0
    for number, request in enumerate(requests):
        began = time.thread_time()
        await answer(request)
        spent += time.thread_time() - began
        if pause_every and number % pause_every == 0:
            await asyncio.sleep(0.002)
    return round(spent / len(requests) * 1e6, 1)


if __name__ == "__main__":
    sys.exit(main())
