"""Fields of candidates by row: hundreds are looked at for each answer, so they are kept as rules and caps take them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias, overload

import numpy as np
import numpy.typing as npt

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
        self._columns: dict[str, _Column] = {}
        self._rows: dict[str, int] = {}
        """The rows of which something is kept, by item id."""
        self._kept_since = math.inf
        """Monotonic seconds: nothing of it was read earlier."""
        self._version = 0
        metadata.followers.append(self._forget)

    def version(self, max_staleness_seconds: float | None) -> int | None:
        """Return what is another number once any value that was kept may have changed; None where they are too old."""
        bound, age_seconds = self._bound(max_staleness_seconds), self._age_seconds(time.monotonic())
        return self._version if age_seconds <= bound else None

    async def of(
        self,
        rows: Rows,
        names: Iterable[str],
        deadline: Deadline,
        max_staleness_seconds: float | None,
        use: CatalogUse,
    ) -> Mapping[str, Sequence[Values]]:
        """Return the values of each field called one of ``names`` for each of ``rows``; empty where it is missing.

        They are looked up as they are looked at: before anything else is waited for.

        Raises:
            CatalogUnavailableError, DeadlineExceededError: they cannot be read, or not in time.
        """
        now = time.monotonic()
        bound, age_seconds = self._bound(max_staleness_seconds), self._age_seconds(now)
        if age_seconds > self._ttl_seconds:
            self._drop()
        columns = {name: self._columns.get(name) or _Column() for name in names}
        is_known = np.ones(len(rows), np.bool_) if age_seconds <= bound else np.zeros(len(rows), np.bool_)
        for column in columns.values():
            is_known &= column.knows(rows)
        missing, asked = rows[:0] if is_known.all() else rows[~is_known], rows.tolist()
        use.metadata_hits += len(rows) - len(missing)
        if not missing.size:
            return {name: _Looked(asked, column.get) for name, column in columns.items()}
        # Taken now: while more is read, some of it may have to be forgotten.
        known = {name: [column.get(row) for row in asked] for name, column in columns.items()}
        # What the reader has may be as old as it allows, and would be kept as long again.
        is_told = now - self._bitmaps.synced_at <= bound
        read = await self._read(missing, [*columns], deadline, max_staleness_seconds if is_told else 0.0, use)
        return {
            name: [read[name].get(row, value) for row, value in zip(asked, values, strict=True)]
            for name, values in known.items()
        }

    async def _read(
        self,
        rows: Rows,
        names: Sequence[str],
        deadline: Deadline,
        max_staleness_seconds: float | None,
        use: CatalogUse,
    ) -> Mapping[str, Mapping[int, Values]]:
        item_ids, numbers = self._fresh.items.ids(rows), rows.tolist()
        began = time.monotonic()
        metadata = await self._metadata.of(item_ids, names, deadline, max_staleness_seconds, use)
        read = {name: {row: one.get(name, ()) for row, one in zip(numbers, metadata, strict=True)} for name in names}
        # What changed meanwhile may have been read before it did.
        if self._metadata.unchanged(item_ids, began):
            if len(self._rows) > _ROWS_KEPT:
                self._drop()
            self._kept_since = min(self._kept_since, began)
            self._rows.update(zip(item_ids, numbers, strict=True))
            for name, values in read.items():
                self._columns.setdefault(name, _Column()).keep(rows, values)
        else:
            self._version += 1  # Nothing to go by, be it made of what was read.
        return read

    def _forget(self, item_ids: Sequence[str] | None) -> None:
        if item_ids is None:
            self._drop()
            return
        for item_id in item_ids:
            row = self._rows.pop(item_id, None)
            if row is not None:
                self._version += 1
                for column in self._columns.values():
                    column.forget(row)

    def _drop(self) -> None:
        self._columns, self._rows, self._kept_since = {}, {}, math.inf
        self._version += 1

    def _bound(self, max_staleness_seconds: float | None) -> float:
        return self._ttl_seconds if max_staleness_seconds is None else min(max_staleness_seconds, self._ttl_seconds)

    def _age_seconds(self, now: float) -> float:
        return now - max(self._kept_since, self._bitmaps.synced_at)


class _Column:
    """The values of one field by row."""

    def __init__(self) -> None:
        self._values: dict[int, Values] = {}
        # That all of hundreds are known is seen at once: looking each up would wait for memory as often.
        self._is_known: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)

    def knows(self, rows: Rows) -> npt.NDArray[np.bool_]:
        try:
            return self._is_known.take(rows)
        except IndexError:
            self._make_room(rows)
            return self._is_known.take(rows)

    def get(self, row: int) -> Values:
        return self._values.get(row, ())

    def keep(self, rows: Rows, values: Mapping[int, Values]) -> None:
        self._make_room(rows)
        self._is_known[rows] = True
        self._values.update(values)

    def forget(self, row: int) -> None:
        if self._values.pop(row, None) is not None:
            self._is_known[row] = False

    def _make_room(self, rows: Rows) -> None:
        last = int(rows.max(initial=-1))
        if last >= len(self._is_known):
            grown = np.zeros(max(2 * len(self._is_known), last + 1), np.bool_)
            grown[: len(self._is_known)] = self._is_known
            self._is_known = grown


class _Looked(Sequence[Values]):
    """Values that are looked up when they are looked at: caps look at few of those who are candidates."""

    def __init__(self, rows: Sequence[int], get: Callable[[int], Values]) -> None:
        self._rows = rows
        self._get = get

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, position: int) -> Values: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Values]: ...
    def __getitem__(self, position: int | slice) -> Values | Sequence[Values]:
        if isinstance(position, slice):
            return _Looked(self._rows[position], self._get)
        return self._get(self._rows[position])

    def __iter__(self) -> Iterator[Values]:
        return map(self._get, self._rows)
