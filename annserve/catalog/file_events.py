"""Events in a file: a log of JSON Lines that several processes append to, each waiting for the disk."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from array import array
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from annserve.catalog.event_lines import EventTail, event_at, line_of, lines_from, parsed
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import CatalogUnavailableError
from annserve.domain.events import Event, EventType, ShownItem, Written, shown_items
from annserve.snapshot.files import locked, sync

DAY_MS = 86_400_000
_CHUNK = 1_000
_DRAFT = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


class FileEventStore:
    """The log at ``path``, which need not be there yet; implements `domain.events.EventStore`.

    Processes may share it: writers wait for each other, and whoever is killed while writing leaves at most half a line,
    which is passed over. Ids are compared, and users' events found, among the newest `EVENTS_REMEMBERED` of the log.
    A deadline is looked at before anything is done: a disk that has begun to write cannot be told to stop.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
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
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _problem("read", error) from error
        try:
            places = await asyncio.to_thread(_ordered_places, fd, since_ms, until_ms, frozenset(types))
            for start in range(0, len(places), _CHUNK):
                yield await asyncio.to_thread(_events_at, fd, places[start : start + _CHUNK])
        except OSError as error:
            raise _problem("read", error) from error
        finally:
            os.close(fd)

    async def erase_user(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> int:
        """Forget all events of a user, and return how many those were."""
        deadline.check("erasing events")
        return await asyncio.to_thread(self._rewrite, lambda event: event.user_id != user_id)

    async def maintain(self, keep_days: int) -> None:
        """Drop what is older than ``keep_days``."""
        oldest_ms = time.time_ns() // 1_000_000 - keep_days * DAY_MS
        await asyncio.to_thread(self._drop_before, oldest_ms)

    async def close(self) -> None:
        """Let go of the file."""
        await asyncio.to_thread(self._close)

    def _write(self, events: Sequence[Event]) -> Written:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._turn:
                # The first time this takes long, and others need not wait for it.
                self._tail.catch_up()
            # A writer's turn comes first: whoever reads need not wait for it too.
            with locked(self._lock), self._turn, self._opened() as fd:
                self._tail.catch_up()
                duplicates, seen, lines = [], set(), []
                for place, event in enumerate(events):
                    if event.event_id in seen or event.event_id in self._tail:
                        duplicates.append(place)
                    else:
                        seen.add(event.event_id)
                        lines.append(line_of(event))
                _append(fd, b"".join(lines))
                # Duplicates too: who wrote them before may have been killed while waiting for the disk.
                os.fsync(fd)
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
            with self._path.open("rb") as file:
                # The log is rewritten only where that would free something.
                if not any(_is_before(line, oldest_ms) for _, line in lines_from(file.fileno(), 0)):
                    return
        except FileNotFoundError:
            return
        except OSError as error:
            raise _problem("read", error) from error
        self._rewrite(lambda event: event.time_ms >= oldest_ms)

    def _rewrite(self, is_kept: Callable[[Event], bool]) -> int:
        """Drop the events that are not to be kept, and return how many those were."""
        draft = self._path.with_name(f".{self._path.name}.new")
        try:
            if not self._path.exists():
                return 0
            with locked(self._lock):
                try:
                    dropped = _copy(self._path, draft, is_kept)
                    if draft.stat().st_size < self._path.stat().st_size:
                        # Else nothing goes, and every process would read anew what was replaced.
                        draft.replace(self._path)
                    # An erased user must not be back after a power cut.
                    sync(self._path.parent)
                finally:
                    draft.unlink(missing_ok=True)
        except OSError as error:
            raise _problem("written", error) from error
        return dropped

    def _close(self) -> None:
        with self._turn:
            self._tail.close()

    @contextmanager
    def _opened(self) -> Iterator[int]:
        is_new = not self._path.exists()
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if is_new:
                sync(self._path.parent)
            yield fd
        finally:
            os.close(fd)

    @property
    def _lock(self) -> Path:
        return self._path.with_name(f".{self._path.name}.lock")


def _copy(path: Path, draft: Path, is_kept: Callable[[Event], bool]) -> int:
    """Write the events that are kept to the disk as ``draft``, and return how many others there are."""
    dropped = 0
    with path.open("rb") as file, os.fdopen(os.open(draft, _DRAFT, 0o600), "wb") as kept:
        # As open to others as the log is, and never more.
        os.fchmod(kept.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode))
        for _, line in lines_from(file.fileno(), 0):
            event = parsed(line)
            if event is None:
                continue
            if is_kept(event):
                kept.write(line + b"\n")
            else:
                dropped += 1
        kept.flush()
        os.fsync(kept.fileno())
    return dropped


def _append(fd: int, lines: bytes) -> None:
    if not lines:
        return
    size = os.fstat(fd).st_size
    # A writer that was cut off left half a line; what follows must not be lost with it.
    if size and os.pread(fd, 1, size - 1) != b"\n":
        lines = b"\n" + lines
    left = memoryview(lines)
    # What is written stays though the rest fails: others may have read it, and take it for known.
    while left:
        left = left[os.write(fd, left) :]


def _is_before(line: bytes, oldest_ms: int) -> bool:
    event = parsed(line)
    return event is not None and event.time_ms < oldest_ms


def _ordered_places(fd: int, since_ms: int, until_ms: int, types: frozenset[EventType]) -> Sequence[int]:
    """Return where the lines of such events are, ordered by it: 16 bytes for each, not the events."""
    times, places = array("q"), array("q")
    for place, line in lines_from(fd, 0):
        event = parsed(line)
        if event is not None and event.type in types and since_ms <= event.time_ms < until_ms:
            times.append(event.time_ms)
            places.append(place)
    return [places[position] for position in sorted(range(len(places)), key=times.__getitem__)]


def _events_at(fd: int, places: Sequence[int]) -> list[Event]:
    return [event for place in places if (event := event_at(fd, place)) is not None]


def _problem(what: str, error: OSError) -> CatalogUnavailableError:
    return CatalogUnavailableError(f"events cannot be {what}: {error.strerror}")
