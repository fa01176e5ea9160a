"""Events in a file: a log of JSON Lines that several processes append to, each waiting for the disk."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path

from annserve.catalog.event_lines import EventTail, line_of
from annserve.catalog.event_log import EventLog, events_at, ordered_places
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import CatalogUnavailableError
from annserve.domain.events import Event, EventType, ShownItem, Written, shown_items

DAY_MS = 86_400_000
_CHUNK = 1_000


class FileEventStore:
    """The log at ``path``, which need not be there yet; implements `domain.events.EventStore`.

    Processes may share it: writers wait for each other, and whoever is killed while writing leaves at most half a line,
    which is passed over. Ids are compared, and users' events found, among the newest `EVENTS_REMEMBERED` of the log.
    A deadline is looked at before anything is done: a disk that has begun to write cannot be told to stop.
    """

    def __init__(self, path: Path) -> None:
        self._log = EventLog(path)
        self._tail = EventTail(path)
        self._turn = threading.Lock()
        """Held by the thread that uses the tail."""

    async def write(self, events: Sequence[Event], deadline: Deadline = NO_DEADLINE) -> Written:
        """Keep ``events``; when this returns they are on the disk."""
        deadline.check("writing events")
        return await asyncio.to_thread(self._write, events)

    async def of_user(
        self,
        user_id: str,
        newest: int,
        types: Collection[EventType] = tuple(EventType),
        deadline: Deadline = NO_DEADLINE,
    ) -> Sequence[Event]:
        """Return a user's newest events of ``types``, latest first."""
        deadline.check("reading events")
        return await asyncio.to_thread(self._of_user, user_id, newest, frozenset(types))

    async def shown(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[ShownItem]:
        """Return the items that a user was shown last, each once, latest first."""
        return shown_items(await self.of_user(user_id, newest, (EventType.IMPRESSION,), deadline), newest)

    async def read(
        self, since_ms: int, until_ms: int, types: Collection[EventType] = tuple(EventType)
    ) -> AsyncIterator[Sequence[Event]]:
        """Yield the events of ``types`` of ``[since_ms, until_ms)``, ordered by time and then as they were written."""
        try:
            fd = os.open(self._log.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _problem("read", error) from error
        try:
            places = await asyncio.to_thread(ordered_places, fd, since_ms, until_ms, frozenset(types))
            for start in range(0, len(places), _CHUNK):
                yield await asyncio.to_thread(events_at, fd, places[start : start + _CHUNK])
        except OSError as error:
            raise _problem("read", error) from error
        finally:
            os.close(fd)

    async def erase_user(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> int:
        """Forget all events of a user, and return how many those were."""
        deadline.check("erasing events")
        return await asyncio.to_thread(self._drop, lambda event: event.user_id != user_id)

    async def maintain(self, keep_days: int) -> None:
        """Drop what is older than ``keep_days``."""
        oldest_ms = time.time_ns() // 1_000_000 - keep_days * DAY_MS
        await asyncio.to_thread(self._drop_before, oldest_ms)

    async def close(self) -> None:
        """Let go of the file."""
        await asyncio.to_thread(self._close)

    def _write(self, events: Sequence[Event]) -> Written:
        try:
            with self._turn:
                # The first time this takes long, and others need not wait for it.
                self._tail.catch_up()
            # A writer's turn comes first: whoever reads need not wait for it too.
            with self._log.held(), self._turn:
                self._tail.catch_up()
                duplicates, seen, lines = [], set(), []
                for place, event in enumerate(events):
                    if event.event_id in seen or event.event_id in self._tail:
                        duplicates.append(place)
                    else:
                        seen.add(event.event_id)
                        lines.append(line_of(event))
                self._log.append(b"".join(lines))
                self._tail.catch_up()
        except OSError as error:
            raise _problem("written", error) from error
        return Written(accepted_count=len(lines), duplicate_count=len(duplicates), duplicate_places=tuple(duplicates))

    def _of_user(self, user_id: str, newest: int, types: frozenset[EventType]) -> list[Event]:
        try:
            with self._turn:
                self._tail.catch_up()
                return self._tail.of_user(user_id, newest, types)
        except OSError as error:
            raise _problem("read", error) from error

    def _drop_before(self, oldest_ms: int) -> None:
        try:
            # The log is rewritten only where that would free something.
            if not self._log.has_before(oldest_ms):
                return
        except OSError as error:
            raise _problem("read", error) from error
        self._drop(lambda event: event.time_ms >= oldest_ms)

    def _drop(self, is_kept: Callable[[Event], bool]) -> int:
        """Drop the events that are not to be kept, and return how many those were."""
        try:
            if not self._log.path.exists():
                return 0
            with self._log.held():
                return self._log.drop(is_kept)
        except OSError as error:
            raise _problem("written", error) from error

    def _close(self) -> None:
        with self._turn:
            self._tail.close()


def _problem(what: str, error: OSError) -> CatalogUnavailableError:
    return CatalogUnavailableError(f"events cannot be {what}: {error.strerror}")
