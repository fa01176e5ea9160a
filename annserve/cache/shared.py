"""What a worker keeps and what its instance keeps, behind one door; whatever is missing is made once."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from cachetools import LRUCache

from annserve.cache.entries import REPORT, Entry, name_of
from annserve.cache.flights import FlightLocks
from annserve.cache.shared_store import SharedStore

WORKER_BYTES_MAX = 16 << 20
WAIT_SECONDS = 0.25
"""How long anyone waits for a value that another makes, before making it too."""

_ENTRY_BYTES = 320
"""About what an entry takes beside its key and value."""
_JITTER = 0.1
_SHOWN_SECONDS = 0.05
"""How long a lock is kept, at most, until the value is there for all to see."""
_LOOK_SECONDS = 0.001
_LOOK_SECONDS_MAX = 0.005


class CacheSource(StrEnum):
    """Where a value came from."""

    NONE = "none"
    """It was made for this."""
    WORKER = "worker"
    INSTANCE = "instance"


class Made(NamedTuple):
    """A value just made."""

    value: bytes
    kept: bool = True
    """Whether it may be handed out to others who ask later."""


class Found(NamedTuple):
    """A value, and where it was."""

    value: bytes
    made_at: float
    """Monotonic seconds."""
    source: CacheSource
    stale: bool = False


@dataclass(slots=True)
class Turn:
    """Somebody's turn to make a value, while all others in the instance wait for it."""

    key: bytes
    flushes: int
    made_at: float
    is_locked: bool
    """Whether others are kept from it by a lock that ends with the turn."""


Compute: TypeAlias = Callable[[], Awaitable[Made]]
Holds: TypeAlias = Callable[[bytes], bool]


@dataclass(slots=True, kw_only=True)
class CacheCounts:
    """How often what happened, since the worker began."""

    worker_hits: int = 0
    instance_hits: int = 0
    stale_hits: int = 0
    """Those of either kind that had expired, and were being made anew."""
    misses: int = 0
    """Values made."""
    joined: int = 0
    """Questions that waited for another's value, which came."""


class SharedCache:
    """A worker's cache: an LRU of its own before what the instance shares. One event loop uses it.

    A key says all that makes its value what it is. Nothing is ever taken back but by time and by `CacheWriter.flush`.
    """

    def __init__(self, folder: Path | None, worker_bytes_max: int = WORKER_BYTES_MAX) -> None:
        """Open it, after the fork.

        Args:
            folder: The instance's, where its `CacheWriter` writes; None for a worker that keeps to itself.
            worker_bytes_max: How much the worker keeps besides.
        """
        self._kept: LRUCache[bytes, Entry] = LRUCache(worker_bytes_max, getsizeof=_size_bytes)
        self._store = None if folder is None else SharedStore(folder)
        self._locks = None if folder is None else FlightLocks(folder)
        self._flights: dict[bytes, asyncio.Future[Entry | None]] = {}
        self._refreshing: dict[bytes, asyncio.Task[Found]] = {}
        self._unseen: dict[bytes, tuple[Entry, float]] = {}
        self.counts = CacheCounts()

    @property
    def dropped_count(self) -> int:
        """How many values could not be sent to the instance's cache."""
        return 0 if self._store is None else self._store.dropped_count

    @property
    def size_bytes(self) -> int:
        """About what the worker itself keeps."""
        return int(self._kept.currsize)

    def get(self, key: bytes, holds: Holds | None = None) -> Found | None:
        """Return the value of ``key`` unless it has expired, or does not hold; never waits."""
        entry, source = self._find(key, holds)
        return None if entry is None or time.monotonic() >= entry.expires_at else self._hit(entry, source)

    def put(self, key: bytes, value: bytes, made_at: float, ttl_seconds: float, stale_seconds: float = 0.0) -> None:
        """Keep ``value``, whose making began at ``made_at``, for about ``ttl_seconds``; see `get_or_compute`."""
        self._keep(self._entry(key, value, made_at, ttl_seconds, stale_seconds))

    def get_shared(self, key: bytes) -> Found | None:
        """Return what the instance has of ``key``, unless it has expired: for who keeps values of his own besides."""
        entry = None if self._store is None else self._store.get(key)
        if entry is None or time.monotonic() >= entry.expires_at:
            return None
        return Found(entry.value, entry.made_at, CacheSource.INSTANCE)

    def put_shared(self, key: bytes, value: bytes, made_at: float, ttl_seconds: float) -> None:
        """Give the instance ``value``, whose making began at ``made_at``; see `get_shared`."""
        if self._store is not None:
            self._store.put(self._entry(key, value, made_at, ttl_seconds, 0.0))

    async def get_or_compute(
        self,
        key: bytes,
        compute: Compute,
        ttl_seconds: float,
        stale_seconds: float = 0.0,
        wait_seconds: float = WAIT_SECONDS,
        holds: Holds | None = None,
    ) -> Found:
        """Return the value of ``key``, made by ``compute`` if need be: once, however many ask, in all workers.

        Args:
            key: Says everything that the value depends on.
            compute: Makes the value; what it raises is raised here, for its caller and not for those who wait.
            ttl_seconds: How long the value holds, give or take a tenth, so that not all expire at once.
            stale_seconds: How long after that it is handed out still, while it is made anew.
            wait_seconds: How long to wait for another's value; then ``compute`` is called nonetheless.
            holds: Says whether a value that is kept is still one; unless it does, there is none.
        """
        entry, source = self._find(key, holds)
        if entry is not None:
            now = time.monotonic()
            if now < entry.expires_at:
                return self._hit(entry, source)
            if now < entry.stale_until:
                self._refresh(key, compute, ttl_seconds, stale_seconds, holds)
                return self._hit(entry, source, stale=True)
        flight = self._flights.get(key)
        if flight is not None:
            # A future may be waited for by many; one that stops waiting must not end it for the others.
            await asyncio.wait({flight}, timeout=min(wait_seconds, WAIT_SECONDS))
            joined = flight.result() if flight.done() else None
            if joined is not None and (holds is None or holds(joined.value)):
                self.counts.joined += 1
                return Found(joined.value, joined.made_at, CacheSource.WORKER)
            # It failed for a reason that may be its own, or is too slow.
            made, _ = await self._compute(key, compute, ttl_seconds, stale_seconds)
            return _made(made)
        return await self._lead(key, compute, ttl_seconds, stale_seconds, wait_seconds, holds)

    def begin(self, key: bytes) -> Turn | Found | None:
        """Return the turn to make the value of ``key`` now, or its value if it has just been made; never waits.

        None where somebody makes it already. Who is given a turn ends it, by `complete` or `give_up`, before the event
        loop goes on.
        """
        if key in self._flights or key in self._refreshing:
            return None
        if key in self._unseen:
            return self.get(key)  # Its lock is this process's, and is not to be given back yet.
        locks = self._locks if self._store is not None and self._store.connected else None
        if locks is not None and not locks.take(name_of(key)):
            return None
        # Who had the lock before kept it until the value was there to see.
        found = self.get(key)
        if found is None:
            return Turn(key, self._flushes, time.monotonic(), locks is not None)
        if locks is not None:
            locks.free(name_of(key))
        return found

    def complete(self, turn: Turn, value: bytes, ttl_seconds: float, stale_seconds: float) -> Found:
        """Keep ``value``, which was made in ``turn``; see `get_or_compute`."""
        self.counts.misses += 1
        # A flush meanwhile is meant for it too.
        entry = self._entry(turn.key, value, turn.made_at, ttl_seconds, stale_seconds)._replace(flushes=turn.flushes)
        is_on_its_way = self._keep(entry)
        if turn.is_locked:
            turn.is_locked = False
            self._free(turn.key, entry if is_on_its_way else None)
        return _made(entry)

    def give_up(self, turn: Turn) -> None:
        """Leave it to others to make the value, unless it is there."""
        if turn.is_locked:
            turn.is_locked = False
            self._unlock(turn.key)

    def report(self, report: dict[str, Any]) -> None:
        """Send ``report`` to the instance's writer, if there is one."""
        if self._store is not None:
            self._store.send(REPORT + json.dumps(report).encode())

    def close(self) -> None:
        """Let go of everything."""
        for task in self._refreshing.values():
            task.cancel()
        self._unseen.clear()
        if self._store is not None:
            self._store.close()
        if self._locks is not None:
            self._locks.close()
        self._store = self._locks = None

    def _find(self, key: bytes, holds: Holds | None) -> tuple[Entry | None, CacheSource]:
        """Return the youngest entry of ``key`` there is that ``holds``, fresh or not."""
        kept = self._kept.get(key)
        if kept is not None and (kept.flushes != self._flushes or not (holds is None or holds(kept.value))):
            kept = None
        if self._store is None or (kept is not None and time.monotonic() < kept.expires_at):
            return kept, CacheSource.WORKER
        shared = self._store.get(key)
        if shared is None or (kept is not None and shared.made_at <= kept.made_at):
            return kept, CacheSource.WORKER
        if not (holds is None or holds(shared.value)):
            return None, CacheSource.INSTANCE
        self._remember(shared)
        return shared, CacheSource.INSTANCE

    def _hit(self, entry: Entry, source: CacheSource, *, stale: bool = False) -> Found:
        if source is CacheSource.WORKER:
            self.counts.worker_hits += 1
        else:
            self.counts.instance_hits += 1
        self.counts.stale_hits += stale
        return Found(entry.value, entry.made_at, source, stale)

    async def _lead(
        self,
        key: bytes,
        compute: Compute,
        ttl_seconds: float,
        stale_seconds: float,
        wait_seconds: float,
        holds: Holds | None,
    ) -> Found:
        """Make the value for all who ask for it meanwhile."""
        if key in self._flights:
            # It expired for good before the task that was to refresh it had its turn.
            made, _ = await self._compute(key, compute, ttl_seconds, stale_seconds)
            return _made(made)
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        entry: Entry | None = None
        is_on_its_way = False
        try:
            elsewhere, locked = await self._turn(key, wait_seconds, holds)
            if elsewhere is not None:
                entry = elsewhere
                self.counts.joined += 1
                return Found(entry.value, entry.made_at, CacheSource.INSTANCE)
            try:
                entry, is_on_its_way = await self._compute(key, compute, ttl_seconds, stale_seconds)
            finally:
                if locked:
                    self._free(key, entry if is_on_its_way else None)
            return _made(entry)
        finally:
            del self._flights[key]
            flight.set_result(entry)

    async def _turn(self, key: bytes, wait_seconds: float, holds: Holds | None) -> tuple[Entry | None, bool]:
        """Wait until no other worker makes the value; return what it made, or whether the lock was taken."""
        if self._store is None or self._locks is None or not self._store.connected:
            return None, False
        name, pause = name_of(key), _LOOK_SECONDS
        give_up_at = time.monotonic() + min(wait_seconds, WAIT_SECONDS)
        while not (locked := self._locks.take(name)) and time.monotonic() < give_up_at:
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, _LOOK_SECONDS_MAX)
            if (entry := self._fresh(key, holds)) is not None:
                return entry, False
        # Who had the lock kept it until the value was there: this is the look that finds it.
        entry = self._fresh(key, holds)
        if entry is not None and locked:
            self._locks.free(name)
            locked = False
        return entry, locked

    def _fresh(self, key: bytes, holds: Holds | None) -> Entry | None:
        entry, _ = self._find(key, holds)
        return None if entry is None or time.monotonic() >= entry.expires_at else entry

    async def _compute(
        self, key: bytes, compute: Compute, ttl_seconds: float, stale_seconds: float
    ) -> tuple[Entry, bool]:
        """Return a new entry, and whether it is on its way to where all workers see it."""
        made_at, flushes = time.monotonic(), self._flushes
        self.counts.misses += 1
        made = await compute()
        if not made.kept:
            return Entry(key, made.value, flushes, made_at, -math.inf, -math.inf), False
        # A flush meanwhile is meant for it too.
        entry = self._entry(key, made.value, made_at, ttl_seconds, stale_seconds)._replace(flushes=flushes)
        return entry, self._keep(entry)

    @property
    def _flushes(self) -> int:
        return 0 if self._store is None else self._store.flushes

    def _entry(self, key: bytes, value: bytes, made_at: float, ttl_seconds: float, stale_seconds: float) -> Entry:
        expires_at = made_at + ttl_seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
        return Entry(key, value, self._flushes, made_at, expires_at, expires_at + stale_seconds)

    def _keep(self, entry: Entry) -> bool:
        self._remember(entry)
        return self._store is not None and self._store.put(entry)

    def _remember(self, entry: Entry) -> None:
        if _size_bytes(entry) <= self._kept.maxsize:
            self._kept[entry.key] = entry

    def _refresh(
        self, key: bytes, compute: Compute, ttl_seconds: float, stale_seconds: float, holds: Holds | None
    ) -> None:
        """Make a value anew behind the backs of those who are handed the old one, unless somebody does."""
        if key in self._flights or key in self._refreshing:
            return

        def refreshed(task: asyncio.Task[Found]) -> None:
            del self._refreshing[key]
            if not task.cancelled():
                task.exception()  # The old value is there until it is of no use; then the error is its caller's.

        making = self._lead(key, compute, ttl_seconds, stale_seconds, WAIT_SECONDS, holds)
        task = self._refreshing[key] = asyncio.get_running_loop().create_task(making)
        task.add_done_callback(refreshed)

    def _free(self, key: bytes, entry: Entry | None) -> None:
        """Free the lock of ``key`` as soon as all workers can see ``entry``; at once where there is nothing to see."""
        if entry is None:
            self._unlock(key)
            return
        if not self._unseen:
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        self._unseen[key] = (entry, time.monotonic() + _SHOWN_SECONDS)

    def _look(self) -> None:
        """Free the locks of values that are there to see now."""
        if self._store is None:
            return
        now = time.monotonic()
        # They come into sight in the order they were sent.
        for key, (entry, give_up_at) in list(self._unseen.items()):
            seen = self._store.get(key)
            if now < give_up_at and (seen is None or seen.made_at < entry.made_at):
                break
            del self._unseen[key]
            self._unlock(key)
        if self._unseen:
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _unlock(self, key: bytes) -> None:
        if self._locks is not None:
            self._locks.free(name_of(key))


def _made(entry: Entry) -> Found:
    return Found(entry.value, entry.made_at, CacheSource.NONE)


def _size_bytes(entry: Entry) -> int:
    return len(entry.key) + len(entry.value) + _ENTRY_BYTES
