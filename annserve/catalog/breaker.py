"""A circuit breaker: after a few failures in a row, or one silence, nobody asks any more but a probe now and then.

Breakers of libraries wrap calls, so that the next request after a pause is the probe and pays for it. Here a task of
the breaker's own finds out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

FAILURES_MAX = 3
PROBE_EVERY_SECONDS = 1.0


class Breaker:
    """Closed while calls succeed; opened by failures in a row or by silence, closed by a probe that succeeds.

    Args:
        probe: Asks once; returns whether there was an answer. It bounds its own time and raises nothing.
        failures_max: How many failures in a row open it.
        probe_every_seconds: How long to wait before each probe.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[bool]],
        failures_max: int = FAILURES_MAX,
        probe_every_seconds: float = PROBE_EVERY_SECONDS,
    ) -> None:
        self._probe = probe
        self._failures_max = failures_max
        self._probe_every_seconds = probe_every_seconds
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None
        self.openings = 0

    @property
    def is_open(self) -> bool:
        """Whether calls are to be refused."""
        return self._probing is not None

    def succeeded(self) -> None:
        """Tell of a call that was answered."""
        self._failures = 0

    def failed(self) -> None:
        """Tell of a call that was answered badly."""
        self._failures += 1
        if self._failures >= self._failures_max:
            self.open()

    def open(self) -> None:
        """Have calls refused until a probe succeeds: after a call without any answer there is no use in more."""
        if self._probing is None:
            self.openings += 1
            self._probing = asyncio.create_task(self._probe_until_answered())

    async def close(self) -> None:
        """Stop probing."""
        probing, self._probing = self._probing, None
        if probing is not None:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    async def _probe_until_answered(self) -> None:
        try:
            await asyncio.sleep(self._probe_every_seconds)
            # Looked at anew, since a driver may swallow that the task is cancelled.
            while not await self._probe() and self.is_open:
                await asyncio.sleep(self._probe_every_seconds)
        finally:
            self._failures = 0
            self._probing = None
