"""What is said to be on the disk is there, also when the disk has failed before: a disk that forgets, modelled.

The model is what Linux does: after a failed `fsync` the pages that could not be written count as clean. The next
`fsync` waits for what was written since, and succeeds.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from annserve.catalog.event_lines import line_of, parsed
from annserve.catalog.file_events import FileEventStore
from annserve.domain.errors import CatalogUnavailableError
from annserve.domain.events import Event, EventType

REAL_WRITE, REAL_PWRITE, REAL_FSYNC = os.write, os.pwrite, os.fsync


class ForgetfulDisk:
    """Keeps apart what is in the log and what would be left of it after a power cut."""

    def __init__(self, path: Path, moods: Iterable[str]) -> None:
        self._path = path
        self._moods = iter(moods)
        self._dirty: dict[int, set[int]] = {}
        self._safe: dict[int, set[int]] = {}

    def write(self, fd: int, data: Any) -> int:
        if not self._is_ours(fd):
            return REAL_WRITE(fd, data)
        if next(self._moods, "well") == "half":
            self._soil(fd, os.fstat(fd).st_size, REAL_WRITE(fd, bytes(data)[: len(data) // 2]))
            raise OSError(errno.ENOSPC, "No space left on device")
        start = os.fstat(fd).st_size
        written = REAL_WRITE(fd, data)
        self._soil(fd, start, written)
        return written

    def pwrite(self, fd: int, data: Any, start: int) -> int:
        written = REAL_PWRITE(fd, data, start)
        self._soil(fd, start, written)
        return written

    def fsync(self, fd: int) -> None:
        if not self._is_ours(fd):
            REAL_FSYNC(fd)
            return
        inode = os.fstat(fd).st_ino
        dirty = self._dirty.pop(inode, set())
        if next(self._moods, "well") == "lost":
            raise OSError(errno.EIO, "Input/output error")
        self._safe.setdefault(inode, set()).update(dirty)

    def ids_after_a_power_cut(self) -> set[str]:
        if not self._path.exists():
            return set()
        content = self._path.read_bytes()
        safe = self._safe.get(self._path.stat().st_ino, set())
        # A line that is lost is none, wherever the line before it ends.
        left = bytes(byte if place in safe or byte == 10 else 0 for place, byte in enumerate(content))
        return {event.event_id for line in left.split(b"\n") if (event := parsed(line)) is not None}

    def _is_ours(self, fd: int) -> bool:
        """Return whether it is on this disk: other threads of the process have others."""
        return Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(self._path.parent)

    def _soil(self, fd: int, start: int, count: int) -> None:
        self._dirty.setdefault(os.fstat(fd).st_ino, set()).update(range(start, start + count))


def disk_of(path: Path, moods: Iterable[str], patch: pytest.MonkeyPatch) -> ForgetfulDisk:
    disk = ForgetfulDisk(path, moods)
    for name in ("write", "pwrite", "fsync"):
        patch.setattr(os, name, getattr(disk, name))
    return disk


def event(number: int) -> Event:
    return Event(event_id=str(number), type=EventType.CLICK, user_id="u", item_ids=("a",), time_ms=number)


async def test_a_repeated_call_is_written_again_after_the_disk_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    store, other = FileEventStore(path), FileEventStore(path)
    # The name of the log, its first line; then the second.
    disk = disk_of(path, [*["well"] * 3, "well", "lost"], monkeypatch)
    await store.write([event(0)])
    with pytest.raises(CatalogUnavailableError, match="Input/output error"):
        await store.write([event(1)])
    assert disk.ids_after_a_power_cut() == {"0"}

    written = await other.write([event(1)])

    # It is one event though it was written twice, and now it is on the disk.
    assert (written.accepted_count, written.duplicate_count) == (0, 1)
    assert disk.ids_after_a_power_cut() == {"0", "1"}
    assert [one.event_id async for chunk in store.read(0, 10) for one in chunk] == ["0", "1"]
    await store.close()
    await other.close()


async def test_a_line_that_was_cut_off_before_its_end_is_no_event_once_another_follows(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line_of(event(0)).removesuffix(b"\n"))
    store = FileEventStore(path)

    written = await store.write([event(0)])

    assert (written.accepted_count, written.duplicate_count) == (1, 0)
    assert [one.event_id async for chunk in store.read(0, 10) for one in chunk] == ["0"]
    await store.close()


WRITES = st.lists(st.tuples(st.integers(0, 1), st.lists(st.integers(0, 6), min_size=1, max_size=3)), max_size=10)
MOODS = st.lists(st.sampled_from(["well", "well", "well", "half", "lost"]), max_size=30)


@example(writes=[(0, [0]), (0, [0, 1]), (0, [0])], moods=["well", "half", "well", "half"])
@given(writes=WRITES, moods=MOODS)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_acknowledged_outlives_a_power_cut_and_is_kept_once(
    writes: list[tuple[int, list[int]]], moods: list[str]
) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            path = Path(folder) / "events.jsonl"
            stores = [FileEventStore(path), FileEventStore(path)]
            disk = disk_of(path, moods, patch)
            acknowledged: set[str] = set()
            for which, numbers in writes:
                try:
                    await stores[which].write([event(number) for number in numbers])
                except CatalogUnavailableError:
                    continue
                acknowledged |= set(map(str, numbers))
                assert acknowledged <= disk.ids_after_a_power_cut()
            kept = [one.event_id async for chunk in stores[0].read(0, 10) for one in chunk]
            for store in stores:
                await store.close()
        assert len(kept) == len(set(kept))

    asyncio.run(run())
