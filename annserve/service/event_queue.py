"""Events on their way to their store: what several calls bring within a moment is written at once."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import AnnserveError, DeadlineExceededError, EventsUnavailableError
from annserve.domain.events import Event, EventStore, Written

GATHER_SECONDS: Final = 0.002
"""How long the first call of a batch waits for others."""
BATCH_BYTES: Final = 3 << 20
"""How much memory of events is written at once, or one request: to encode them holds up the event loop."""
QUEUE_BYTES_MAX: Final = 32 << 20
"""How much memory may wait or be being written; more is refused. One request of 640 KiB is at most 16 MiB of events."""
CALLS_MAX: Final = 256
"""How many calls may wait, unless it is said: a store that hangs must leave room for calls that need none."""
CLOSE_SECONDS: Final = 10.0
"""How long what waits may take to be written at the end."""

_logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class QueueCounts:
    """What became of events since the start."""

    accepted: int = 0
    duplicate: int = 0
    erased: int = 0
    """Of users who were erased since they happened."""
    refused: int = 0
    """There was no room for them, or no store."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Call:
    events: Sequence[Event]
    size_bytes: int
    outcome: asyncio.Future[Written]


class EventQueue:
    """Writes events to ``store``, a batch at a time. One event loop uses it.

    A call ends when its events are durable, or when it is known that they may not be. What it brought is written also
    when nobody waits for it any more.
    """

    def __init__(
        self,
        store: EventStore,
        is_erased: Callable[[Event], bool] = lambda _: False,
        written: Callable[[Sequence[Event]], None] = lambda _: None,
        calls_max: int = CALLS_MAX,
    ) -> None:
        """Write to ``store``.

        Args:
            store: Where to; closed by who opened it, after `close`.
            is_erased: Whether an event is of a user who was erased since.
            written: Told of events as soon as they are durable.
            calls_max: How many calls may wait; more are refused.
        """
        self._store = store
        self._is_erased = is_erased
        self._written = written
        self._calls_max = calls_max
        self._calls = 0
        self.counts = QueueCounts()
        self._waiting: deque[_Call] = deque()
        self._held_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self._closed = False

    async def write(self, events: Sequence[Event], size_bytes: int, deadline: Deadline = NO_DEADLINE) -> Written:
        """Return once ``events``, which take ``size_bytes`` of memory, are durable.

        Raises:
            EventsUnavailableError: they, or some of them, cannot be kept now.
            DeadlineExceededError: it took too long; they may be kept all the same.
        """
        deadline.check("waiting for its turn")
        self.check_room(len(events), size_bytes)
        call = _Call(events=events, size_bytes=size_bytes, outcome=asyncio.get_running_loop().create_future())
        call.outcome.add_done_callback(_heard)
        self._waiting.append(call)
        self._held_bytes += size_bytes
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        remaining = deadline.at - time.monotonic()
        self._calls += 1
        try:
            async with asyncio.timeout(None if math.isinf(remaining) else max(remaining, 0.0)):
                return await asyncio.shield(call.outcome)
        except TimeoutError:
            raise DeadlineExceededError("waiting for events to be durable") from None
        finally:
            self._calls -= 1

    def check_room(self, event_count: int, size_bytes: int = 0) -> None:
        """Refuse so many events, counting them, where there is no room for ``size_bytes`` more.

        Raises:
            EventsUnavailableError: there is none.
        """
        is_full = self._held_bytes + size_bytes > QUEUE_BYTES_MAX or self._calls >= self._calls_max
        if self._closed or is_full:
            self.counts.refused += event_count
            raise EventsUnavailableError("the server is stopping" if self._closed else "too many wait to be written")

    async def close(self) -> None:
        """Take no more, and write what waits."""
        self._closed = True
        if (writing := self._writing) is not None:
            await asyncio.wait({writing}, timeout=CLOSE_SECONDS)
            writing.cancel()

    async def _write_all(self) -> None:
        try:
            await asyncio.sleep(GATHER_SECONDS)
            while self._waiting:
                # What comes while one batch is being written makes the next.
                await self._write_batch(self._next_batch())
        finally:
            self._writing = None

    def _next_batch(self) -> list[_Call]:
        batch = [self._waiting.popleft()]
        size_bytes = batch[0].size_bytes
        while self._waiting and size_bytes + self._waiting[0].size_bytes <= BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size_bytes += batch[-1].size_bytes
        return batch

    async def _write_batch(self, batch: Sequence[_Call]) -> None:
        # Whether a user was erased is asked last of all: what waited may be from before that.
        owned = [(call, event) for call in batch for event in call.events if not self._is_erased(event)]
        events = [event for _, event in owned]
        try:
            written = await self._store.write(events) if events else Written(accepted_count=0, duplicate_count=0)
        except AnnserveError as error:
            self._fail(batch, error.metadata.get("problem", error.message))
        except Exception:
            _logger.exception("writing events failed")
            self._fail(batch, "their store failed")
        else:
            self.counts.accepted += written.accepted_count
            self.counts.duplicate += written.duplicate_count
            self._written(events)
            self.counts.erased += sum(len(call.events) for call in batch) - len(events)
            duplicates = set(written.duplicate_places)
            accepted = Counter(call for place, (call, _) in enumerate(owned) if place not in duplicates)
            for call in batch:
                _settle(call, accepted[call])
        finally:
            self._held_bytes -= sum(call.size_bytes for call in batch)

    def _fail(self, batch: Sequence[_Call], problem: str) -> None:
        for call in batch:
            self.counts.refused += len(call.events)
            if not call.outcome.done():
                call.outcome.set_exception(EventsUnavailableError(problem))


def _settle(call: _Call, accepted_count: int) -> None:
    if not call.outcome.done():
        # An event of a user who was erased since is answered as one that is known.
        duplicate_count = len(call.events) - accepted_count
        call.outcome.set_result(Written(accepted_count=accepted_count, duplicate_count=duplicate_count))


def _heard(outcome: asyncio.Future[Written]) -> None:
    # Nobody may be waiting any more, and then an error is no event.
    if not outcome.cancelled():
        outcome.exception()
