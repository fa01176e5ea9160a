"""Where an answer is worked out: on the event loop when that is quick, in a thread when it would hold others up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

from annserve.domain.deadline import Deadline
from annserve.domain.errors import DeadlineExceededError

LOOP_US: Final = 1_000.0
"""What work may cost on the event loop, in microseconds; while it runs, nobody else is answered."""

T = TypeVar("T")


class Workbench:
    """Runs work of one event loop, which the threads of ``executor`` help."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def run(self, estimated_us: float, work: Callable[[], T], deadline: Deadline) -> T:
        """Return what ``work`` returns.

        Raises:
            DeadlineExceededError: the deadline passed. Work still waiting for a thread then is never begun; work that
                has begun goes on until it looks at the deadline itself.
        """
        return work() if estimated_us <= LOOP_US else await self._off_loop(work, deadline)

    async def _off_loop(self, work: Callable[[], T], deadline: Deadline) -> T:
        stage = "waiting for a thread"

        def begin() -> T:
            nonlocal stage
            deadline.check(stage)
            stage = "search"
            return work()

        future = asyncio.get_running_loop().run_in_executor(self._executor, begin)
        try:
            return await asyncio.wait_for(future, deadline.at - time.monotonic())
        except TimeoutError:
            raise DeadlineExceededError(stage) from None
