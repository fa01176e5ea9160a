"""What the keeper of an instance counts: changes of the catalogue that it followed, and what the shared cache holds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from prometheus_client import Counter, Gauge

from annserve.keeper.counters import KeeperCounters
from annserve.service.admin import CacheAdmin
from annserve.service.metrics import Metrics

_COUNTED: Final = ("builds", "build_failures", "changes", "unknown_items", "flips", "resyncs", "floods")
_CACHE_LOOK_SECONDS: Final = 5.0


class Counting(Protocol):
    """The keeper of one snapshot's bitmaps."""

    counters: KeeperCounters


class Hub(Protocol):
    """Where keepers are."""

    @property
    def keepers(self) -> Mapping[str, Counting]:
        """Those at work, by snapshot id: a keeper goes when the last worker of its snapshot has gone."""
        ...


def follow_keepers(metrics: Metrics, hub: Hub) -> None:
    """Publish in ``metrics`` what the keepers of ``hub`` count, all together."""
    registry = metrics.registry
    events = Counter("annserve_keeper", "What the keeper did, by kind.", ("kind",), registry=registry)
    drift = Gauge(
        "annserve_index_metadata_drift",
        "Items of the catalogue that a snapshot lacks, and the other way round.",
        ("kind",),
        multiprocess_mode="livesum",
        registry=registry,
    )
    published: WeakKeyDictionary[Counting, dict[str, int]] = WeakKeyDictionary()

    def publish() -> None:
        keepers = list(hub.keepers.values())
        for keeper in keepers:
            before = published.setdefault(keeper, dict.fromkeys(_COUNTED, 0))
            for kind in _COUNTED:
                now: int = getattr(keeper.counters, kind)
                events.labels(kind).inc(now - before[kind])
                before[kind] = now
        for kind in ("items_without_row", "rows_without_item"):
            drift.labels(kind).set(max((getattr(keeper.counters, kind) for keeper in keepers), default=0))

    metrics.follow(publish)


async def follow_cache(metrics: Metrics, cache: CacheAdmin) -> None:
    """Publish in ``metrics`` what ``cache`` holds, until cancelled."""
    size_bytes = entry_count = 0
    metrics.follow_value("annserve_cache_bytes", "Held by the shared cache.", lambda: size_bytes)
    metrics.follow_value("annserve_cache_entries", "How many it holds.", lambda: entry_count)
    while True:
        stats = await cache.stats()
        size_bytes, entry_count = stats.size_bytes, stats.entry_count
        await asyncio.sleep(_CACHE_LOOK_SECONDS)
