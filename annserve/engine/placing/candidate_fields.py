"""Fields of candidates by row: hundreds are looked at for each answer, so they are kept as rules and caps take them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from annserve.cache.bitmaps import BitmapCache
from annserve.domain.arrays import Rows
from annserve.domain.deadline import Deadline
from annserve.domain.filter import Scalar
from annserve.domain.query import CatalogUse
from annserve.engine.fresh_state import FreshState
from annserve.engine.metadata import MetadataReader

_ROWS_KEPT = 200_000
"""Beyond these everything is read again."""

Values: TypeAlias = tuple[Scalar, ...]


class CandidateFields:
    """Keeps the values of fields by row until they change or have grown old. One event loop uses it."""

    def __init__(self, metadata: MetadataReader, bitmaps: BitmapCache, fresh: FreshState, ttl_seconds: float) -> None:
        """Read by ``metadata`` and hear of changes from it; where none arrive, read again after ``ttl_seconds``."""
        self._metadata = metadata
        self._bitmaps = bitmaps
        self._fresh = fresh
        self._ttl_seconds = ttl_seconds
        self._kept: dict[str, dict[int, Values]] = {}
        self._rows: dict[str, int] = {}
        """The rows of which something is kept, by item id."""
        self._kept_since = math.inf
        """Monotonic seconds: nothing of it was read earlier."""
        metadata.followers.append(self._forget)

    async def of(
        self,
        rows: Rows,
        names: Iterable[str],
        deadline: Deadline,
        max_staleness_seconds: float | None,
        use: CatalogUse,
    ) -> Mapping[str, Sequence[Values]]:
        """Return the values of each field called one of ``names`` for each of ``rows``; empty where it is missing.

        Raises:
            CatalogUnavailableError, DeadlineExceededError: they cannot be read, or not in time.
        """
        asked, now = rows.tolist(), time.monotonic()
        bound = self._ttl_seconds if max_staleness_seconds is None else min(max_staleness_seconds, self._ttl_seconds)
        age_seconds = now - max(self._kept_since, self._bitmaps.synced_at)
        if age_seconds > self._ttl_seconds:
            self._drop()
        kept = self._kept if age_seconds <= bound else {}
        found = {name: [*map(kept.get(name, _NOTHING).get, asked)] for name in names}
        missing = {row for values in found.values() if None in values for row in _missing(asked, values)}
        use.metadata_hits += len(asked) - len(missing)
        read: Mapping[str, Mapping[int, Values]] = {}
        if missing:
            # What the reader has may be as old as it allows, and would be kept as long again.
            is_told = now - self._bitmaps.synced_at <= bound
            read = await self._read([*missing], [*found], deadline, max_staleness_seconds if is_told else 0.0, use)
        return {
            name: [read[name][row] if value is None else value for row, value in zip(asked, values, strict=True)]
            for name, values in found.items()
        }

    async def _read(
        self,
        rows: Sequence[int],
        names: Sequence[str],
        deadline: Deadline,
        max_staleness_seconds: float | None,
        use: CatalogUse,
    ) -> Mapping[str, Mapping[int, Values]]:
        item_ids = self._fresh.items.ids(np.array(rows, np.int64))
        began = time.monotonic()
        metadata = await self._metadata.of(item_ids, names, deadline, max_staleness_seconds, use)
        read = {name: {row: one.get(name, ()) for row, one in zip(rows, metadata, strict=True)} for name in names}
        # What changed meanwhile may have been read before it did.
        if self._metadata.unchanged(item_ids, began):
            self._keep(dict(zip(item_ids, rows, strict=True)), read, began)
        return read

    def _keep(self, rows: Mapping[str, int], read: Mapping[str, Mapping[int, Values]], began: float) -> None:
        if len(self._rows) > _ROWS_KEPT:
            self._drop()
        self._kept_since = min(self._kept_since, began)
        self._rows.update(rows)
        for name, values in read.items():
            self._kept.setdefault(name, {}).update(values)

    def _forget(self, item_ids: Sequence[str] | None) -> None:
        if item_ids is None:
            self._drop()
            return
        for item_id in item_ids:
            row = self._rows.pop(item_id, None)
            if row is not None:
                for values in self._kept.values():
                    values.pop(row, None)

    def _drop(self) -> None:
        self._kept, self._rows, self._kept_since = {}, {}, math.inf


_NOTHING: Mapping[int, Values] = {}


def _missing(rows: Sequence[int], values: Sequence[Values | None]) -> Iterable[int]:
    return (row for row, value in zip(rows, values, strict=True) if value is None)
