"""Calls at a steady pace while one worker of an instance is stopped, hedged and not: for chaos tests and load tests."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
from checked_traffic import item_id
from instances import Instance

from annserve_client import AnnserveError, AsyncClient, Hedging, Options, Similar
from annserve_client.admin import AdminClient

CONNECTION_COUNT = 8
WARM_CALLS = 100
ITEM_COUNT = 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How calls fared while a worker was stopped; a failed call counts with the time it took."""

    call_count: int
    failed_count: int
    hedge_count: int
    p50_ms: float
    p99_ms: float
    p999_ms: float

    @property
    def extra_share(self) -> float:
        """How many second attempts there were for each call."""
        return self.hedge_count / self.call_count


async def calls_beside_a_stopped_worker(
    running: Instance, hedging: Hedging | None, *, rate: float, seconds: float, timeout_seconds: float | None = None
) -> Outcome:
    """Return how calls fare at ``rate`` a second, open loop, for ``seconds`` in which one worker is stopped."""
    async with AsyncClient(
        running.address,
        connection_count=CONNECTION_COUNT,
        timeout_seconds=timeout_seconds,
        hedging=hedging,
    ) as client:
        # Every connection is made before the worker stops.
        await _paced(client, WARM_CALLS, rate)
        hedges = client.hedge_count
        with _stopped_worker(running):
            calls = await _paced(client, round(rate * seconds), rate)
        hedges = client.hedge_count - hedges
    took_ms = np.array([took for took, _ in calls]) * 1e3
    p50, p99, p999 = (round(float(np.percentile(took_ms, share)), 1) for share in (50, 99, 99.9))
    return Outcome(
        call_count=len(calls),
        failed_count=sum(failed for _, failed in calls),
        hedge_count=hedges,
        p50_ms=p50,
        p99_ms=p99,
        p999_ms=p999,
    )


async def _paced(client: AsyncClient, count: int, rate: float) -> list[tuple[float, bool]]:
    """Make ``count`` calls, each at its time whatever became of others; gives the seconds since then, and failure."""
    chance = random.Random(count)
    begun = time.monotonic()

    async def call(at: float) -> tuple[float, bool]:
        try:
            await client.recommend(_request(chance))
        except AnnserveError:
            return time.monotonic() - at, True
        return time.monotonic() - at, False

    tasks = []
    for number in range(count):
        at = begun + number / rate
        await asyncio.sleep(max(at - time.monotonic(), 0.0))
        tasks.append(asyncio.create_task(call(at)))
    return await asyncio.gather(*tasks)


def _request(chance: random.Random) -> Similar:
    seed = item_id(chance.randrange(ITEM_COUNT))
    return Similar(item_ids=[seed], options=Options(page_size=10, bypass_cache=True))


@contextmanager
def _stopped_worker(running: Instance) -> Iterator[None]:
    """Stop a worker that has some of this process's connections, and the supervisor, which would replace it."""
    with AdminClient(running.admin_address) as admin:
        pids = [worker.pid for worker in running.serving(admin)]
    ours = {connection.laddr for connection in psutil.Process().net_connections("tcp") if connection.raddr}
    pid = max(pids, key=lambda pid: sum(one.raddr in ours for one in psutil.Process(pid).net_connections("tcp")))
    os.kill(running.process.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        os.kill(running.process.pid, signal.SIGCONT)
