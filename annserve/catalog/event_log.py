"""A log of events on a disk: lines that several processes append, each until the disk has them.

A disk that failed to write once has not written what it says it has the next time: the kernel calls pages clean that
it could not write, and waiting again finds nothing to wait for (Rebello et al., Can Applications Recover from fsync
Failures?, 2020). So what was being written is noted in the lock file first, and the note goes when the disk has it;
who finds one writes those bytes again.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from annserve.catalog.event_lines import event_at, lines_from, parsed
from annserve.domain.events import Event, EventType
from annserve.snapshot.files import locked, sync

_DRAFT = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 20


class EventLog:
    """The log at ``path``, which need not be there yet. Every method raises OSError where the disk does not do it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = path.with_name(f".{path.name}.lock")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody else append or drop."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._lock):
            yield

    def append(self, lines: bytes) -> None:
        """Add ``lines``, and return when they, and all before them, are on the disk. The log must be `held`.

        What was written stays though the rest fails: others may have read it, and take it for known.
        """
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            now = os.fstat(fd)
            doubt = self._doubt()
            start = doubt[1] if doubt is not None and doubt[0] == now.st_ino else now.st_size
            self._note(now.st_ino, min(start, now.st_size))
            if not now.st_size or doubt is not None:
                # The name of the log, which may be new, is part of it.
                sync(self.path.parent)
            _write_again(self.path, fd, start, now.st_size)
            _append(fd, lines, now.st_size)
            # With nothing to add too: who wrote the last of it may have been killed while waiting for the disk.
            os.fsync(fd)
        finally:
            os.close(fd)
        self._forget_note()

    def drop(self, is_kept: Callable[[Event], bool]) -> int:
        """Rewrite the log without the events that are not kept, and return how many those were; it must be `held`."""
        if not self.path.exists():
            return 0
        draft = self.path.with_name(f".{self.path.name}.new")
        try:
            dropped = _copy(self.path, draft, is_kept)
            if draft.stat().st_size < self.path.stat().st_size:
                # Else nothing goes, and every process would read anew what was replaced.
                self._note(draft.stat().st_ino, draft.stat().st_size)
                draft.replace(self.path)
                # An erased user must not be back after a power cut.
                sync(self.path.parent)
                self._forget_note()
        finally:
            draft.unlink(missing_ok=True)
        return dropped

    def has_before(self, oldest_ms: int) -> bool:
        """Return whether there are events from before then."""
        try:
            with self.path.open("rb") as file:
                return any(_is_before(line, oldest_ms) for _, line in lines_from(file.fileno(), 0))
        except FileNotFoundError:
            return False

    def _doubt(self) -> tuple[int, int] | None:
        """Return the inode of the log that may not be all on the disk, and from which byte on; None for no doubt."""
        noted = self._lock.read_bytes()
        if not noted:
            return None
        try:
            inode, start = map(int, noted.split())
        except ValueError:  # Torn.
            return (self.path.stat().st_ino, 0)
        return (inode, start)

    def _note(self, inode: int, start: int) -> None:
        # Nobody needs it after a power cut: what was not on the disk is not in the log then.
        with self._lock.open("r+b") as file:
            file.write(b"%d %d\n" % (inode, start))
            file.truncate()

    def _forget_note(self) -> None:
        os.truncate(self._lock, 0)


def ordered_places(fd: int, since_ms: int, until_ms: int, types: Collection[EventType]) -> Sequence[int]:
    """Return where the lines of events of ``types`` and that time are, ordered by it: 16 bytes each, not the events."""
    times, places = array("q"), array("q")
    for place, line in lines_from(fd, 0):
        event = parsed(line)
        if event is not None and event.type in types and since_ms <= event.time_ms < until_ms:
            times.append(event.time_ms)
            places.append(place)
    return [places[position] for position in sorted(range(len(places)), key=times.__getitem__)]


def events_at(fd: int, places: Sequence[int]) -> list[Event]:
    """Return the events whose lines begin at ``places``."""
    return [event for place in places if (event := event_at(fd, place)) is not None]


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


def _write_again(path: Path, fd: int, start: int, end: int) -> None:
    """Write the bytes from ``start`` to ``end`` where they are, so that the kernel has to bring them to the disk."""
    if start >= end:
        return
    # A descriptor for appending would append them.
    in_place = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while start < end and (chunk := os.pread(fd, min(_CHUNK_BYTES, end - start), start)):
            start += os.pwrite(in_place, chunk, start)
    finally:
        os.close(in_place)


def _append(fd: int, lines: bytes, size: int) -> None:
    if not lines:
        return
    # A writer that was cut off left half a line; what follows must not be lost with it. Nor may a line that lacks
    # nothing but its end become an event: nobody has taken it for one, and it is about to be written again.
    if size and os.pread(fd, 1, size - 1) != b"\n":
        lines = b"\0\n" + lines
    left = memoryview(lines)
    while left:
        left = left[os.write(fd, left) :]


def _is_before(line: bytes, oldest_ms: int) -> bool:
    event = parsed(line)
    return event is not None and event.time_ms < oldest_ms
