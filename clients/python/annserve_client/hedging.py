"""A second attempt for calls that take unusually long: the tail at scale, by Dean and Barroso (2013).

gRPC's own hedging is not in its C core, which Python uses.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from annserve_client.pool import Connection, Pool, lapsed

SAVED_MAX = 10.0

Begin = Callable[[Connection[Any], float], Any]
"""Starts an attempt on a connection, with so many seconds to go; returns gRPC's call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedging:
    """When a call goes out a second time, on another connection. The first answer counts, the other is cancelled."""

    after_seconds: float
    """How long the first attempt is waited for: what 99 of 100 calls need is a good choice."""
    budget: float = 0.05
    """How many second attempts there may be for each call, on average: above 0, at most 1. 10 may be saved up, and are
    there to begin with; a call for which there is none left waits for one."""

    def __post_init__(self) -> None:
        if not self.after_seconds > 0:
            raise ValueError(f"after_seconds must be above 0, got {self.after_seconds}")
        if not 0 < self.budget <= 1:
            raise ValueError(f"budget must be above 0 and at most 1, got {self.budget}")


@dataclass(slots=True)
class _Attempt:
    connection: Connection[Any]
    call: Any = None


class Hedger:
    """Makes calls, of which some are hedged, within one budget. Threads, or tasks of one event loop, may share it."""

    def __init__(self, hedging: Hedging, pool: Pool[Any]) -> None:
        self._hedging = hedging
        self._pool = pool
        self._lock = threading.Lock()
        self._tokens = SAVED_MAX
        self.hedge_count = 0

    def call(self, begin: Begin, timeout_seconds: float) -> Any:
        """Return the first good answer of one or two attempts that ``begin`` starts, by its `future`.

        Raises:
            grpc.RpcError: there is none.
        """
        until = time.monotonic() + timeout_seconds
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        attempts: list[_Attempt] = []
        best = code = None
        self._earn()
        try:
            self._start(attempts, begin, until, ended.put)
            while best is None:
                try:
                    best = ended.get(timeout=self._patience(attempts))
                except queue.Empty:
                    if self._may_hedge():
                        self._start(attempts, begin, until, ended.put)
            code = best.code()
            if code is not grpc.StatusCode.OK and len(attempts) == 2:
                best = ended.get()
                code = best.code()
            return best.result()
        finally:
            self._settle(attempts, best, code)

    async def call_async(self, begin: Begin, timeout_seconds: float) -> Any:
        """As `call`, for calls of `grpc.aio`."""
        until = time.monotonic() + timeout_seconds
        ended: asyncio.Queue[Any] = asyncio.Queue()
        attempts: list[_Attempt] = []
        best = code = None
        self._earn()
        try:
            self._start(attempts, begin, until, ended.put_nowait)
            while best is None:
                try:
                    best = await asyncio.wait_for(ended.get(), self._patience(attempts))
                except TimeoutError:
                    if self._may_hedge():
                        self._start(attempts, begin, until, ended.put_nowait)
            code = await best.code()
            if code is not grpc.StatusCode.OK and len(attempts) == 2:
                best = await ended.get()
                code = await best.code()
            return await best
        finally:
            self._settle(attempts, best, code)

    def _patience(self, attempts: list[_Attempt]) -> float | None:
        """Return how many seconds to wait before a second attempt, or before there may be budget for it."""
        return self._hedging.after_seconds if len(attempts) == 1 else None

    def _start(self, attempts: list[_Attempt], begin: Begin, until: float, ended: Callable[[Any], None]) -> None:
        attempt = _Attempt(self._pool.take_another(attempts[0].connection) if attempts else self._pool.take())
        attempts.append(attempt)
        attempt.call = begin(attempt.connection, max(until - time.monotonic(), 0.0))
        attempt.call.add_done_callback(ended)

    def _settle(self, attempts: list[_Attempt], best: Any, code: grpc.StatusCode | None) -> None:
        """Cancel what is under way still, and judge the connections."""
        for attempt in attempts:
            if attempt.call is best:
                self._pool.give_back(attempt.connection, lapsed=lapsed(code))
                continue
            if attempt.call is not None:
                attempt.call.cancel()
            # Of the second attempt, which began late, it says nothing that the first was better after all.
            is_overtaken = attempt is attempts[0] and code is grpc.StatusCode.OK
            is_late = is_overtaken or code is grpc.StatusCode.DEADLINE_EXCEEDED
            self._pool.give_back(attempt.connection, lapsed=True if is_late else None)

    def _earn(self) -> None:
        with self._lock:
            self._tokens = min(self._tokens + self._hedging.budget, SAVED_MAX)

    def _may_hedge(self) -> bool:
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            self.hedge_count += 1
            return True
