"""Events as lines of JSON, and what a process remembers of the newest lines of a log of them."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from annserve.catalog.event_values import event_of, values_of
from annserve.domain.events import Event, EventType

EVENTS_REMEMBERED = 200_000
"""Of how many events, the newest of the log, a process remembers ids and places: some 50 MB."""
TAIL_BYTES = 64 << 20
"""How much of a log is read when it is opened."""
PER_USER = 1_000
"""How many events of a user are looked up."""

_CHUNK_BYTES = 1 << 20
_LINE_BYTES = 4 << 10
_DIGEST_BYTES = 12


def line_of(event: Event) -> bytes:
    """Return ``event`` as a line."""
    values = {"event_id": event.event_id, "time_ms": event.time_ms, **values_of(event)}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def parsed(line: bytes) -> Event | None:
    """Return the event that ``line`` is; None for a line that is none."""
    try:
        values = json.loads(line)
        return event_of(str(values["event_id"]), int(values["time_ms"]), values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def lines_from(fd: int, start: int) -> Iterator[tuple[int, bytes]]:
    """Return the whole lines from ``start`` on, with where each begins; a last one without its end is left out."""
    rest = b""
    at = start
    while chunk := os.pread(fd, _CHUNK_BYTES, at + len(rest)):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield at, line
            at += len(line) + 1


def event_at(fd: int, place: int) -> Event | None:
    """Return the event whose line begins at ``place``; None where none does."""
    line = bytearray()
    while b"\n" not in line and (chunk := os.pread(fd, _LINE_BYTES, place + len(line))):
        line += chunk
    return parsed(bytes(line.partition(b"\n")[0]))


@dataclass(frozen=True, slots=True)
class _Remembered:
    digest: bytes
    user_id: str
    type: EventType
    time_ms: int
    place: int


class EventTail:
    """Follows the log at ``path``: which ids its newest lines have, and where those of each user are. Not for threads.

    Raises OSError where the log cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        """What was read so far. It stays open: the number of an open inode is given to no other file."""
        self._read_bytes = 0
        self._order: deque[_Remembered] = deque()
        self._ids: set[bytes] = set()
        self._by_user: dict[str, deque[_Remembered]] = {}

    def __contains__(self, event_id: str) -> bool:
        return _digest(event_id) in self._ids

    def catch_up(self) -> None:
        """Read what was added since the last time; the newest of all when the log was replaced."""
        self._reopen()
        if self._fd is None:
            return
        start = self._read_bytes
        for place, line in lines_from(self._fd, start):
            self._read_bytes = place + len(line) + 1
            # A line that the reading began in the middle of is none either.
            if (event := parsed(line)) is not None:
                self._remember(event, place)

    def of_user(self, user_id: str, newest: int, types: frozenset[EventType]) -> list[Event]:
        """Return a user's newest events of ``types``, latest first, as far as `catch_up` has read."""
        found = [one for one in self._by_user.get(user_id, ()) if one.type in types]
        found.sort(key=lambda one: (one.time_ms, one.place), reverse=True)
        fd = self._fd
        return [event for one in found[:newest] if fd is not None and (event := event_at(fd, one.place)) is not None]

    def close(self) -> None:
        """Let go of the file, and forget."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._read_bytes = None, 0
        self._order, self._ids, self._by_user = deque(), set(), {}

    def _reopen(self) -> None:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            self.close()
            return
        if self._fd is not None:
            known = os.fstat(self._fd)
            if (known.st_dev, known.st_ino) == (now.st_dev, now.st_ino) and now.st_size >= self._read_bytes:
                return
        self.close()
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._read_bytes = max(0, os.fstat(self._fd).st_size - TAIL_BYTES)

    def _remember(self, event: Event, place: int) -> None:
        digest = _digest(event.event_id)
        if digest in self._ids:
            return
        one = _Remembered(digest, event.user_id, event.type, event.time_ms, place)
        self._order.append(one)
        self._ids.add(digest)
        of_user = self._by_user.setdefault(event.user_id, deque(maxlen=PER_USER))
        of_user.append(one)
        if len(self._order) > EVENTS_REMEMBERED:
            self._forget(self._order.popleft())

    def _forget(self, one: _Remembered) -> None:
        self._ids.discard(one.digest)
        of_user = self._by_user[one.user_id]
        # It may have given way to newer ones of hers.
        if of_user[0] is one:
            of_user.popleft()
        if not of_user:
            del self._by_user[one.user_id]


def _digest(event_id: str) -> bytes:
    return blake2b(event_id.encode(), digest_size=_DIGEST_BYTES).digest()
