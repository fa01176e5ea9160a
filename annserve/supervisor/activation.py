"""From one generation to the next: one at a time, the newest wish first, and the old one serves until all is well."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from annserve.domain.errors import ActivationRefusedError
from annserve.supervisor.backoff import BackOff
from annserve.supervisor.counters import Counters
from annserve.supervisor.generation import Generation

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A change of snapshots that has ended."""

    snapshot_id: str | None
    cause: str = ""
    """One word for why it did not come about; empty when it did."""
    problem: str = ""
    ended_at: float
    """Seconds since 1970."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Wish:
    snapshot_id: str | None
    outcome: asyncio.Future[None]


class Activations:
    """Has snapshots loaded and staffed. One event loop uses it."""

    def __init__(self, begin: Callable[[str | None], Generation], counters: Counters) -> None:
        """Start generations by ``begin``."""
        self._begin = begin
        self._counters = counters
        self._backoff = BackOff()
        self._wish: _Wish | None = None
        self._task: asyncio.Task[None] | None = None
        self.last: Swap | None = None
        self.loading_id: str | None = None
        """What is being loaded."""

    async def activate(self, snapshot_id: str | None) -> None:
        """Serve a snapshot; None for the best that can be had.

        Raises:
            ActivationRefusedError: it cannot be, or another was wished for before its turn came.
        """
        await asyncio.shield(self.wish(snapshot_id))

    def wish(self, snapshot_id: str | None) -> asyncio.Future[None]:
        """Serve a snapshot when those before it are done; of several that wait only the last is served."""
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
        overtaken, self._wish = self._wish, _Wish(snapshot_id=snapshot_id, outcome=outcome)
        if overtaken is not None:
            if overtaken.snapshot_id == snapshot_id:
                outcome.add_done_callback(lambda done: _pass_on(done, overtaken.outcome))
            else:
                problem = f"{snapshot_id} was wished for before its turn came"
                overtaken.outcome.set_exception(
                    ActivationRefusedError(overtaken.snapshot_id or "", "OVERTAKEN", problem)
                )
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return outcome

    def revive(self, snapshot_id: str | None, now: float) -> None:
        """Have a loader again where one has died, unless something is being loaded anyway."""
        if (self._task is None or self._task.done()) and self._backoff.is_due(now):
            _log.warning("a new loader is started for %s", snapshot_id)
            self.wish(snapshot_id).add_done_callback(self._revived)

    @property
    def heading_for(self) -> str | None:
        """What the last change that is to come leads to; None when none is, empty for the best that can be had."""
        return self.loading_id if self._wish is None else self._wish.snapshot_id or ""

    def cancel(self) -> None:
        """Begin nothing any more."""
        if self._task is not None:
            self._task.cancel()

    def _begun(self, snapshot_id: str | None) -> Generation:
        try:
            return self._begin(snapshot_id)
        except OSError as error:
            problem = f"a loader cannot be started: {error.strerror or error}"
            raise ActivationRefusedError(snapshot_id or "", "LOADER_NOT_STARTED", problem) from error

    def _revived(self, outcome: asyncio.Future[None]) -> None:
        if outcome.cancelled() or outcome.exception() is not None:
            self._backoff.failed(time.monotonic())
        else:
            self._backoff.lived()

    async def _work(self) -> None:
        while (wish := self._wish) is not None:
            self._wish = None
            self.loading_id = wish.snapshot_id or ""
            try:
                generation = self._begun(wish.snapshot_id)
                await asyncio.shield(generation.staffed)
            except ActivationRefusedError as refusal:
                _log.error("not taken into service: %s", refusal)
                self._counters.swaps["refused"] += 1
                self.last = Swap(
                    snapshot_id=wish.snapshot_id,
                    cause=refusal.metadata["cause"],
                    problem=refusal.metadata["problem"],
                    ended_at=time.time(),
                )
                if not wish.outcome.done():
                    wish.outcome.set_exception(refusal)
            except asyncio.CancelledError:
                wish.outcome.cancel()
                raise
            else:
                _log.info("snapshot %s is in service", generation.snapshot_id)
                self._counters.swaps["succeeded"] += 1
                self.last = Swap(snapshot_id=generation.snapshot_id, ended_at=time.time())
                if not wish.outcome.done():
                    wish.outcome.set_result(None)
            finally:
                self.loading_id = None


def _pass_on(done: asyncio.Future[None], other: asyncio.Future[None]) -> None:
    if other.done():
        return
    if done.cancelled():
        other.cancel()
    elif error := done.exception():
        other.set_exception(error)
    else:
        other.set_result(None)
