"""Where an answer is worked out: on the event loop when that is quick, in a thread when it would hold others up."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Final, TypeVar

from annserve.domain.deadline import Deadline
from annserve.domain.errors import DeadlineExceededError, OverloadedError
from annserve.domain.tracing import current_trace
from annserve.search.index import LongScanError

LOOP_US: Final = 1_000.0
"""What work may cost on the event loop, in microseconds; while it runs, nobody else is answered."""

FALLBACK_US: Final = LOOP_US / 2
"""What an exact search may cost there that was not expected. Related may meet two."""

WAIT_SECONDS_MAX: Final = 0.025
"""How long work may have to wait for a thread: a few times what it takes. More would be waiting for its own sake."""

_LEARNED: Final = 0.05
"""How much of what an estimate is corrected by is the last job's."""

T = TypeVar("T")


class Workbench:
    """Runs work of one event loop, which the threads of ``executor`` help."""

    def __init__(
        self,
        executor: Executor,
        threads: int = 1,
        wait_seconds_max: float = WAIT_SECONDS_MAX,
        waited: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """Work on the running loop and in ``executor``.

        Args:
            executor: Has nothing else to do.
            threads: How many it has.
            wait_seconds_max: How long work that needs a thread may have to wait for one; it is refused otherwise,
                unless no more jobs wait than there are threads.
            waited: Called in the thread, with how long a job has waited, in seconds.
        """
        self._executor = executor
        self._threads = threads
        self._wait_seconds_max = wait_seconds_max
        self._waited = waited
        self._lock = threading.Lock()
        self._job_count = 0
        """Of jobs that have not ended, begun or not."""
        self._job_us = 0.0
        """What those will cost, as estimated."""
        self._slowness = 1.0
        """What jobs take, as a multiple of their estimates: machines differ, and other processes want them too."""

    async def run(self, estimated_us: float, work: Callable[[float], T], deadline: Deadline) -> T:
        """Return what ``work`` returns.

        Args:
            estimated_us: What it costs in all likelihood, in microseconds.
            work: Is given what an unexpected exact search may cost where it is called. When it raises LongScanError
                on the loop it is called once more, in a thread, without that bound.
            deadline: Of the whole.

        Raises:
            OverloadedError: it needs a thread, and would wait for one for too long.
            DeadlineExceededError: the deadline passed. Work still waiting for a thread then is never begun; work that
                has begun goes on until it looks at the deadline itself.
        """
        if estimated_us <= LOOP_US:
            try:
                return work(FALLBACK_US)
            except LongScanError:
                pass  # What the graph was asked is asked again in the thread: a hundredth of what the scan costs.
        return await self._off_loop(max(estimated_us, LOOP_US), work, deadline)

    async def _off_loop(self, estimated_us: float, work: Callable[[float], T], deadline: Deadline) -> T:
        submitted_at = time.monotonic()
        self._take(estimated_us, deadline.at - submitted_at)
        stage = "waiting for a thread"

        def begin() -> T:
            nonlocal stage
            began_at = time.monotonic()
            is_done = False
            try:
                self._waited(began_at - submitted_at)
                deadline.check(stage)
                stage = "search"
                made = work(math.inf)
                is_done = True
                return made
            finally:
                self._ended(estimated_us, time.monotonic() - began_at if is_done else None)

        # The thread is told who traces the call, where somebody does.
        future = self._executor.submit(begin if current_trace.get() is None else partial(copy_context().run, begin))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), deadline.at - time.monotonic())
        except TimeoutError:
            raise DeadlineExceededError(stage) from None
        finally:
            if future.cancel():
                self._ended(estimated_us, None)

    def _take(self, estimated_us: float, remaining_seconds: float) -> None:
        with self._lock:
            wait_seconds = self._job_us * self._slowness / self._threads / 1e6
            own_seconds = estimated_us * self._slowness / 1e6
            # What finds a thread free is tried whatever its estimate says.
            if self._job_count >= self._threads and (
                wait_seconds + own_seconds > remaining_seconds
                or (wait_seconds > self._wait_seconds_max and self._job_count >= 2 * self._threads)
            ):
                raise OverloadedError(OverloadedError.THREADS)
            self._job_count += 1
            self._job_us += estimated_us

    def _ended(self, estimated_us: float, seconds: float | None) -> None:
        with self._lock:
            self._job_count -= 1
            self._job_us -= estimated_us
            if seconds is not None:
                self._slowness += _LEARNED * (seconds * 1e6 / estimated_us - self._slowness)
