"""Where an answer is worked out: on the event loop when that is quick, in a thread when it would hold others up."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

from annserve.domain.deadline import Deadline
from annserve.domain.errors import DeadlineExceededError
from annserve.search.index import LongScanError

LOOP_US: Final = 1_000.0
"""What work may cost on the event loop, in microseconds; while it runs, nobody else is answered."""

FALLBACK_US: Final = LOOP_US / 2
"""What an exact search may cost there that was not expected. Related may meet two."""

T = TypeVar("T")


class Workbench:
    """Runs work of one event loop, which the threads of ``executor`` help."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def run(self, estimated_us: float, work: Callable[[float], T], deadline: Deadline) -> T:
        """Return what ``work`` returns.

        Args:
            estimated_us: What it costs in all likelihood, in microseconds.
            work: Is given what an unexpected exact search may cost where it is called. When it raises LongScanError
                on the loop it is called once more, in a thread, without that bound.
            deadline: Of the whole.

        Raises:
            DeadlineExceededError: the deadline passed. Work still waiting for a thread then is never begun; work that
                has begun goes on until it looks at the deadline itself.
        """
        if estimated_us <= LOOP_US:
            try:
                return work(FALLBACK_US)
            except LongScanError:
                pass  # What the graph was asked is asked again in the thread: a hundredth of what the scan costs.
        return await self._off_loop(work, deadline)

    async def _off_loop(self, work: Callable[[float], T], deadline: Deadline) -> T:
        stage = "waiting for a thread"

        def begin() -> T:
            nonlocal stage
            deadline.check(stage)
            stage = "search"
            return work(math.inf)

        future = asyncio.get_running_loop().run_in_executor(self._executor, begin)
        try:
            return await asyncio.wait_for(future, deadline.at - time.monotonic())
        except TimeoutError:
            raise DeadlineExceededError(stage) from None
