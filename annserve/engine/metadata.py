"""Items' metadata: read from the catalogue, kept until it changes or has grown old."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence

from cachetools import LRUCache

from annserve.cache.bitmaps import BitmapCache
from annserve.cache.single_flight import SingleFlight
from annserve.domain.catalog import CatalogStore, Change, Metadata
from annserve.domain.deadline import Deadline
from annserve.domain.query import CatalogUse
from annserve.engine.catalog_settings import CatalogSettings

_ITEMS_KEPT = 50_000
_ABSENT: Metadata = {}


class MetadataReader:
    """Reads all declared fields of an item at once, so that any `read_mask` finds them the next time."""

    def __init__(self, store: CatalogStore, bitmaps: BitmapCache, settings: CatalogSettings) -> None:
        self._store = store
        self._bitmaps = bitmaps
        self._ttl_seconds = settings.metadata_ttl_seconds
        self._fields = tuple(store.schema.fields.values())
        self._kept: LRUCache[str, tuple[float, Metadata]] = LRUCache(_ITEMS_KEPT)
        self._changed_at: LRUCache[str, float] = LRUCache(_ITEMS_KEPT)
        self._forgotten_at = -math.inf
        self._flights: SingleFlight[tuple[str, ...], Mapping[str, Metadata]] = SingleFlight()

    def forget(self, changes: Sequence[Change]) -> None:
        """Drop what is known of items that changed, and what is being read of them."""
        now = time.monotonic()
        for change in changes:
            self._kept.pop(change.item_id, None)
            self._changed_at[change.item_id] = now

    def forget_all(self) -> None:
        """Drop everything, and what is being read: changes were missed."""
        self._kept.clear()
        self._forgotten_at = time.monotonic()

    def keep(self, found: Mapping[str, Metadata], read_at: float) -> None:
        """Remember all declared fields of items, read no earlier than ``read_at`` on the monotonic clock."""
        for item_id, metadata in found.items():
            # A change that was told meanwhile may be younger than what was read.
            if max(self._changed_at.get(item_id, read_at), self._forgotten_at) <= read_at:
                self._kept[item_id] = (read_at, metadata)

    async def of(
        self,
        item_ids: Sequence[str],
        names: Iterable[str],
        deadline: Deadline,
        max_staleness_seconds: float | None,
        use: CatalogUse,
    ) -> list[Metadata]:
        """Return the fields called ``names`` of each item; nothing for one that the catalogue lacks.

        Raises:
            CatalogUnavailableError, DeadlineExceededError: it cannot be read, or not in time.
        """
        now = time.monotonic()
        bound = self._ttl_seconds if max_staleness_seconds is None else min(max_staleness_seconds, self._ttl_seconds)
        found: dict[str, Metadata] = {}
        for item_id in item_ids:
            entry = self._kept.get(item_id)
            if entry is not None and now - max(entry[0], self._bitmaps.synced_at) <= bound:
                found[item_id] = entry[1]
        use.metadata_hits += len(found)
        missing = tuple(item_id for item_id in item_ids if item_id not in found)
        if missing:
            use.database_calls += 1
            found.update(await self._flights.get(missing, lambda: self._read(missing, deadline)))
        wanted = tuple(names)
        return [chosen(found.get(item_id, _ABSENT), wanted) for item_id in item_ids]

    async def _read(self, item_ids: tuple[str, ...], deadline: Deadline) -> Mapping[str, Metadata]:
        read_at = time.monotonic()
        found = await self._store.select(item_ids, None, self._fields, deadline)
        self.keep(found, read_at)
        return found


def chosen(metadata: Metadata, names: Iterable[str]) -> Metadata:
    """Return the fields called ``names`` that ``metadata`` has."""
    return {name: metadata[name] for name in names if name in metadata}
