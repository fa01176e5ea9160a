"""The instance's cache, as its keeper operates it: what workers wrote and reported."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from annserve.cache.hot_keys import HotKeys, Request
from annserve.cache.shared_writer import CacheWriter
from annserve.service.admin import CacheStats, HotKey


class WriterCacheAdmin:
    """Implements `service.admin.CacheAdmin` in the process that writes the cache."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        """Reserve the memory; raises as `CacheWriter`."""
        self._writer = CacheWriter(folder, bytes_max, self._take)
        # Reports come in the writer's thread.
        self._lock = threading.Lock()
        self._hot_keys = HotKeys()
        self._counts: Counter[str] = Counter()

    def start(self) -> None:
        """Begin to take what workers send."""
        self._writer.start()

    def stop(self) -> None:
        """End; workers go on reading what is there."""
        self._writer.stop()

    async def stats(self) -> CacheStats:
        """Return what the cache holds, and how it fared since this process was started."""
        stored = await asyncio.to_thread(lambda: self._writer.stored)
        with self._lock:
            counts = self._counts
            return CacheStats(
                entry_count=stored.entry_count,
                size_bytes=stored.size_bytes,
                size_bytes_max=stored.size_bytes_max,
                worker_hit_count=counts["worker_hits"],
                instance_hit_count=counts["instance_hits"] + counts["joined"],
                miss_count=counts["misses"],
                dropped_count=counts["dropped"] + stored.failed_count,
            )

    async def flush(self) -> None:
        """Forget everything, in every worker."""
        self._writer.flush()

    async def hot_keys(self, count: int) -> Sequence[HotKey]:
        """Return the hottest items, hottest first, at most ``count``."""
        with self._lock:
            hottest = self._hot_keys.top(count)
        return [HotKey(item_id=item.item_id, share=item.share, hit_ratio=item.hit_ratio) for item in hottest]

    def hot_requests(self, count: int) -> list[Request]:
        """Return requests about the hottest items, none of which says anything of a user."""
        with self._lock:
            return self._hot_keys.top_requests(count)

    def _take(self, report: dict[str, Any]) -> None:
        with self._lock:
            self._hot_keys.add(report)
            self._counts.update(report["counts"])
            self._counts["dropped"] += report["dropped"]
