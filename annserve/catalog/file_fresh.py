"""Fresh items in a file: a log of JSON Lines, the last word on an item last, followed as others add to it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from annserve.domain.errors import CatalogUnavailableError
from annserve.domain.fresh import FreshBatch, FreshItem, StoredItem
from annserve.snapshot.files import locked, sync

LOOK_SECONDS = 0.1
"""How often followers look whether something was added."""


class FileFreshStore:
    """The log at ``path``, which need not be there yet; implements `domain.fresh.FreshStore`.

    Processes may share it: writers wait for each other, and whoever is killed while writing leaves at most half a line,
    which is passed over.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def write(self, items: Sequence[FreshItem]) -> None:
        """Keep the last word on items of different ids."""
        await asyncio.to_thread(self._write, items)

    async def all(self) -> Sequence[StoredItem]:
        """Return the last word on every item, by number."""
        return await asyncio.to_thread(self._all)

    async def follow(self) -> AsyncGenerator[FreshBatch, None]:
        """Yield all there is, and from then on what is written."""
        reader = _Reader(self._path)
        try:
            while True:
                batch = await asyncio.to_thread(reader.read_on)
                if batch is not None:
                    yield batch
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            reader.close()

    async def forget(self, items: Sequence[StoredItem]) -> None:
        """Drop what is kept of items on which nothing has been written since."""
        await asyncio.to_thread(self._forget, items)

    async def close(self) -> None:
        """Nothing is held open."""

    def _write(self, items: Sequence[FreshItem]) -> None:
        written_ms = time.time_ns() // 1_000_000
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self._lock), self._path.open("ab+") as file:
                known, next_number = _last_words(file.fileno())
                lines = []
                for item in items:
                    before = known.get(item.item_id)
                    number = next_number if before is None else before.number
                    next_number += before is None
                    lines.append(_line(StoredItem(item=item, number=number, written_ms=written_ms)))
                # A writer that was cut off left half a line; what follows must not be lost with it.
                if file.seek(0, os.SEEK_END) and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                    file.write(b"\n")
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _problem("written", error) from error

    def _all(self) -> Sequence[StoredItem]:
        reader = _Reader(self._path)
        try:
            batch = reader.read_on()
        finally:
            reader.close()
        return [] if batch is None else batch.items

    def _forget(self, items: Sequence[StoredItem]) -> None:
        try:
            if not self._path.exists():
                return
            with locked(self._lock):
                with self._path.open("rb") as file:
                    known, next_number = _last_words(file.fileno())
                for item in items:
                    kept = known.get(item.item.item_id)
                    if kept is not None and kept.written_ms == item.written_ms:
                        del known[item.item.item_id]
                draft = self._path.with_name(f".{self._path.name}.new")
                with draft.open("wb") as file:
                    # Numbers are not given twice: they are rows, and known by them in workers.
                    file.write(json.dumps({"next_number": next_number}).encode() + b"\n")
                    file.write(b"".join(map(_line, known.values())))
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(self._path)
                sync(self._path.parent)
        except OSError as error:
            raise _problem("written", error) from error

    @property
    def _lock(self) -> Path:
        return self._path.with_name(f".{self._path.name}.lock")


class _Reader:
    """Reads a log on from where it stopped, or anew where it was replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        """What was read so far. It stays open: the number of an open inode is given to no other file."""
        self._read_bytes = 0
        self._has_begun = False

    def read_on(self) -> FreshBatch | None:
        """Return all there is the first time and after a replacement, then what was added; None for nothing."""
        try:
            is_all = self._reopen()
            if self._file is None:
                return FreshBatch((), is_all=True) if is_all else None
            added = os.pread(self._file, os.fstat(self._file).st_size - self._read_bytes, self._read_bytes)
        except OSError as error:
            raise _problem("read", error) from error
        whole = added[: added.rfind(b"\n") + 1]  # The last line may still be being written.
        self._read_bytes += len(whole)
        words = {item.item.item_id: item for item in map(_parsed, whole.splitlines()) if item is not None}
        if not words and not is_all:
            return None
        return FreshBatch(sorted(words.values(), key=lambda item: item.number), is_all=is_all)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._read_bytes = None, 0

    def _reopen(self) -> bool:
        """Open what is there now, and return whether it is read from its beginning."""
        begins, self._has_begun = not self._has_begun, True
        try:
            now = self._path.stat()
        except FileNotFoundError:
            was_there = self._file is not None
            self.close()
            return begins or was_there
        if self._file is not None:
            known = os.fstat(self._file)
            if (known.st_dev, known.st_ino) == (now.st_dev, now.st_ino) and now.st_size >= self._read_bytes:
                return begins
        self.close()
        self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return True


def _last_words(fd: int) -> tuple[dict[str, StoredItem], int]:
    """Return the last word on each item, and the number that the next new one gets."""
    text = os.pread(fd, os.fstat(fd).st_size, 0)
    known: dict[str, StoredItem] = {}
    next_number = 0
    for line in text.splitlines():
        item = _parsed(line)
        if item is not None:
            known[item.item.item_id] = item
            next_number = max(next_number, item.number + 1)
        else:
            next_number = max(next_number, _next_number(line))
    return known, next_number


def _line(stored: StoredItem) -> bytes:
    item = stored.item
    value: dict[str, object] = {"item_id": item.item_id, "number": stored.number, "written_ms": stored.written_ms}
    if item.vector is not None:
        value |= {"vector": item.vector.tolist(), "snapshot_id": item.snapshot_id}
    if item.liked_by_user_ids:
        value["liked_by"] = list(item.liked_by_user_ids)
    if not item.is_deleted:
        value["popularity"] = item.popularity
    return json.dumps(value).encode() + b"\n"


def _parsed(line: bytes) -> StoredItem | None:
    """Return what ``line`` says of an item; None for a line that says nothing of one."""
    try:
        value: dict[str, Any] = json.loads(line)
        vector = value.get("vector")
        return StoredItem(
            item=FreshItem(
                item_id=str(value["item_id"]),
                vector=None if vector is None else np.array(vector, np.float32),
                snapshot_id=str(value.get("snapshot_id", "")),
                liked_by_user_ids=tuple(map(str, value.get("liked_by", ()))),
                popularity=float(value.get("popularity", 0.0)),
            ),
            number=int(value["number"]),
            written_ms=int(value["written_ms"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _next_number(line: bytes) -> int:
    try:
        return int(json.loads(line)["next_number"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0


def _problem(what: str, error: OSError) -> CatalogUnavailableError:
    return CatalogUnavailableError(f"fresh items cannot be {what}: {error.strerror}")
