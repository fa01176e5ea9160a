"""Users' histories in a file: a log of JSON Lines, one an entry, read again as others add to it."""

from __future__ import annotations

import fcntl
import json
import os
from bisect import insort
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path

from annserve.domain.catalog import HistoryEntry
from annserve.domain.errors import CatalogUnavailableError, InputError
from annserve.snapshot.files import sync

ENTRIES_MAX = 1_000
"""How many entries of a user are kept in memory and returned."""


class FileHistories:
    """The log at ``path``, which need not be there yet. Processes may share it: writers wait for each other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, list[HistoryEntry]] = {}
        self._file: int | None = None
        """What was read so far. It stays open: the number of an open inode is given to no other file."""
        self._read_bytes = 0

    def newest(self, user_id: str, count: int) -> Sequence[HistoryEntry]:
        """Return the newest entries of a user by time, at most ``count``, oldest first, as far as `catch_up` read."""
        entries = self._entries.get(user_id, [])
        return entries[-count:] if count > 0 else []

    def behind_bytes(self) -> int:
        """Return how much `catch_up` would read or forget.

        Raises:
            CatalogUnavailableError: the file cannot be looked at.
        """
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return self._read_bytes
        except OSError as error:
            raise CatalogUnavailableError(f"histories cannot be read: {error.strerror}") from error
        return now.st_size if self._is_replaced(now) else now.st_size - self._read_bytes

    def catch_up(self) -> None:
        """Read what was added since the last time; all of it when the file was replaced.

        Raises:
            CatalogUnavailableError: the file cannot be read.
        """
        try:
            self._read_on()
        except OSError as error:
            raise CatalogUnavailableError(f"histories cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the file."""
        self._forget()

    def __del__(self) -> None:
        self._forget()

    def add(self, user_id: str, entries: Sequence[HistoryEntry]) -> None:
        """Write ``entries`` to the disk.

        Raises:
            InputError: the file cannot be written.
        """
        lines = "".join(f"{json.dumps(_line(user_id, entry))}\n" for entry in entries)
        with self._writing(), self._path.open("ab+") as file:
            # A writer that was cut off left half a line; what follows must not be lost with it.
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())

    def erase(self, user_id: str) -> int:
        """Remove all of a user from the file, and return how many entries that were."""
        if not self._path.exists():
            return 0
        with self._writing():
            kept, erased = [], 0
            for line in self._path.read_bytes().splitlines():
                parsed = _parsed(line)
                if parsed is not None and parsed[0] == user_id:
                    erased += 1
                elif parsed is not None:
                    kept.append(line)
            temporary = self._path.with_name(f".{self._path.name}.new")
            with temporary.open("wb") as file:
                file.write(b"".join(line + b"\n" for line in kept))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            # An erased user must not be back after a power cut.
            sync(self._path.parent)
        return erased

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep other writers out, also while the file itself is replaced."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise InputError(f"histories in {self._path} cannot be written: {error}", path=self._path) from error

    def _is_replaced(self, now: os.stat_result) -> bool:
        if self._file is None:
            return True
        known = os.fstat(self._file)
        return (known.st_dev, known.st_ino) != (now.st_dev, now.st_ino) or now.st_size < self._read_bytes

    def _forget(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._entries, self._file, self._read_bytes = {}, None, 0

    def _read_on(self) -> None:
        try:
            if self._is_replaced(self._path.stat()):
                self._forget()
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._forget()
        if self._file is None:
            return
        added = os.pread(self._file, os.fstat(self._file).st_size - self._read_bytes, self._read_bytes)
        whole = added[: added.rfind(b"\n") + 1]  # The last line may still be being written.
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            if (parsed := _parsed(line)) is not None:
                user_id, entry = parsed
                entries = self._entries.setdefault(user_id, [])
                insort(entries, entry, key=attrgetter("time_ms"))
                del entries[:-ENTRIES_MAX]


def _line(user_id: str, entry: HistoryEntry) -> dict[str, object]:
    return {"user_id": user_id, "item_id": entry.item_id, "event": entry.event, "time_ms": entry.time_ms}


def _parsed(line: bytes) -> tuple[str, HistoryEntry] | None:
    """Return whose entry ``line`` is, and the entry; None for a line that is none."""
    try:
        value = json.loads(line)
        user_id, item_id, event, time_ms = (value[name] for name in ("user_id", "item_id", "event", "time_ms"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(user_id, str) and isinstance(item_id, str) and isinstance(event, str)):
        return None
    if not isinstance(time_ms, int):
        return None
    return user_id, HistoryEntry(item_id=item_id, event=event, time_ms=time_ms)
