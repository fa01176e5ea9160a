"""Items' metadata: read from the catalogue, kept until it changes or has grown old, shared by an instance's workers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from cachetools import LRUCache

from annserve.cache.bitmaps import BitmapCache
from annserve.cache.shared import SharedCache
from annserve.domain.catalog import CatalogStore, Metadata
from annserve.domain.deadline import Deadline
from annserve.domain.query import CatalogUse
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.merged_look_ups import Found, MergedLookUps

_ITEMS_KEPT = 50_000
_ABSENT: Metadata = {}
_SHARED_SECONDS: Final = 3_600.0
"""How long the instance keeps what is not asked for; whether it is young enough is for who finds it to say."""


class MetadataReader:
    """Reads all declared fields of an item at once, so that any `read_mask` finds them the next time."""

    def __init__(
        self, store: CatalogStore, bitmaps: BitmapCache, settings: CatalogSettings, cache: SharedCache | None = None
    ) -> None:
        """Read from ``store``, or from what other workers put into ``cache``, an item by itself in either.

        With a cache, somebody has to call `forget_all` once changes are told, and whenever any may have been missed:
        what was read before then is nothing to go by.
        """
        self._cache = cache
        self._bitmaps = bitmaps
        self._ttl_seconds = settings.metadata_ttl_seconds
        self._kept: LRUCache[str, tuple[float, Metadata]] = LRUCache(_ITEMS_KEPT)
        self._changed_at: dict[str, float] = {}
        """When it was told of the items that changed last, the latest last."""
        self._forgotten_at = -math.inf
        fields = tuple(store.schema.fields.values())
        self._look_ups = MergedLookUps(store, None, fields)
        self.followers: list[Callable[[Sequence[str] | None], None]] = []
        """Called with the items that are forgotten, None for all: whoever keeps something made of their metadata."""
        # Workers of two generations may have been told of different fields.
        self._prefix = b"metadata\0" + blake2b(repr(fields).encode(), digest_size=8).digest()

    def forget(self, item_ids: Sequence[str]) -> None:
        """Drop what is known of items that changed, and what is being read of them."""
        now = time.monotonic()
        for item_id in item_ids:
            self._kept.pop(item_id, None)
            self._changed_at.pop(item_id, None)
            self._changed_at[item_id] = now
        for follower in self.followers:
            follower(item_ids)
        while len(self._changed_at) > _ITEMS_KEPT:
            # From here on, all that is not among the changes counts as changed then.
            self._forgotten_at = max(self._forgotten_at, self._changed_at.pop(next(iter(self._changed_at))))

    def forget_all(self) -> None:
        """Drop everything, and what is being read: changes were missed."""
        self._kept.clear()
        self._forgotten_at = time.monotonic()
        for follower in self.followers:
            follower(None)

    def unchanged(self, item_ids: Iterable[str], as_of: float) -> bool:
        """Return whether no change of these items was told that is younger than ``as_of``, in monotonic seconds."""
        if self._forgotten_at > as_of:
            return False
        changed_at = self._changed_at
        return not any(changed_at.get(item_id, as_of) > as_of for item_id in item_ids)

    def keep(self, found: Found) -> None:
        """Remember all declared fields of items."""
        read_at = found.sent_at
        for item_id, metadata in found.metadata.items():
            # A change that was told meanwhile may be younger than what was read.
            if self._is_current(item_id, read_at):
                self._kept[item_id] = (read_at, metadata)
                if self._cache is not None:
                    self._cache.put_shared(self._key(item_id), json.dumps(metadata).encode(), read_at, _SHARED_SECONDS)

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
            entry = self._kept.get(item_id) or self._shared(item_id)
            if entry is not None and now - max(entry[0], self._bitmaps.synced_at) <= bound:
                found[item_id] = entry[1]
        use.metadata_hits += len(found)
        missing = tuple(item_id for item_id in item_ids if item_id not in found)
        if missing:
            use.database_calls += 1
            read = await self._look_ups.find(missing, deadline)
            self.keep(read)
            found.update(read.metadata)
        wanted = tuple(names)
        return [chosen(found.get(item_id, _ABSENT), wanted) for item_id in item_ids]

    def _shared(self, item_id: str) -> tuple[float, Metadata] | None:
        """Return what another worker read of an item, and when, unless it has changed since."""
        shared = None if self._cache is None else self._cache.get_shared(self._key(item_id))
        if shared is None or not self._is_current(item_id, shared.made_at):
            return None
        entry = self._kept[item_id] = (shared.made_at, _decoded(shared.value))
        return entry

    def _key(self, item_id: str) -> bytes:
        return self._prefix + item_id.encode()

    def _is_current(self, item_id: str, read_at: float) -> bool:
        return max(self._changed_at.get(item_id, read_at), self._forgotten_at) <= read_at


def _decoded(value: bytes) -> Metadata:
    fields: Mapping[str, list[str | float | bool | int]] = json.loads(value)
    return {name: tuple(values) for name, values in fields.items()}


def chosen(metadata: Metadata, names: Iterable[str]) -> Metadata:
    """Return the fields called ``names`` that ``metadata`` has."""
    return {name: metadata[name] for name in names if name in metadata}
