"""What the catalogue says of candidates, for rules that an answer can do without: never waited for longer than that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from pyroaring import BitMap

from annserve.cache.bitmaps import LeafBitmap
from annserve.domain.arrays import Rows
from annserve.domain.deadline import Deadline
from annserve.domain.errors import AnnserveError, CatalogUnavailableError, DeadlineExceededError
from annserve.domain.filter import Filter
from annserve.domain.query import CatalogUse
from annserve.engine.candidate_check import CandidateCheck
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.filters import Filters, LeafBuilder
from annserve.engine.fresh_state import FreshState
from annserve.engine.placing.candidate_fields import CandidateFields, Values
from annserve.engine.placing.flags import FlagReader, Flags, flags_of


class CandidateReader:
    """Tests candidates by what is known of filters' leaves, or looks them up; reads their fields."""

    def __init__(
        self,
        filters: Filters,
        builder: LeafBuilder,
        check: CandidateCheck,
        fields: CandidateFields,
        fresh: FreshState,
        settings: CatalogSettings,
    ) -> None:
        """Resolve by ``filters``, have ``builder`` read what is missing, and look candidates up by ``check``."""
        self._filters = filters
        self._builder = builder
        self._check = check
        self._fields = fields
        self._fresh = fresh
        self._settings = settings
        self._flag_reader = FlagReader()

    def versions(
        self, filters: Iterable[Filter], max_staleness_seconds: float | None, field_names: Sequence[str] = ()
    ) -> tuple[int, ...] | None:
        """Return the versions of what ``filters`` are resolved with, and of fields if named; None if one is missing."""
        versions: list[int] = []
        if field_names:
            of_fields = self._fields.version(max_staleness_seconds)
            if of_fields is None:
                return None
            versions.append(of_fields)
        for filter_ in filters:
            known = self._filters.versions(filter_, self._bound(max_staleness_seconds))
            if known is None:
                return None
            versions += known[0]
        return tuple(versions)

    async def passing(
        self,
        filters: Sequence[Filter],
        rows: Rows,
        max_staleness_seconds: float | None,
        deadline: Deadline,
        use: CatalogUse,
    ) -> list[Flags | None]:
        """Return for each of ``filters`` which of ``rows`` pass it; None where that cannot be told in time."""
        bound, found = self._bound(max_staleness_seconds), list[Flags | None]()
        unknown: list[int] = []
        for position, filter_ in enumerate(filters):
            known = self._filters.passing(filter_, bound, use)
            found.append(None if known is None else self._flags(filter_, rows, *known))
            if known is None:
                unknown.append(position)
                for leaf in self._filters.missing(filter_, bound):
                    # For those who come later: nobody waits for it here.
                    self._builder.build(leaf, time.monotonic() - bound).add_done_callback(_retrieve)
        if unknown:
            item_ids = self._fresh.items.ids(rows)
            looked_up = [self._look_up(filters[position], item_ids, deadline, use) for position in unknown]
            for position, flags in zip(unknown, await asyncio.gather(*looked_up), strict=True):
                found[position] = flags
        return found

    async def fields(
        self,
        names: Sequence[str],
        rows: Rows,
        max_staleness_seconds: float | None,
        deadline: Deadline,
        use: CatalogUse,
    ) -> Mapping[str, Sequence[Values]] | None:
        """Return the values of each field for each of ``rows``; None where they cannot be read in time."""
        try:
            return await self._fields.of(rows, names, self.soon(deadline), max_staleness_seconds, use)
        except (CatalogUnavailableError, DeadlineExceededError):
            return None

    def soon(self, deadline: Deadline) -> Deadline:
        """Return by when something must be there that an answer can do without."""
        return Deadline(min(deadline.at, time.monotonic() + self._settings.wait_seconds))

    def _flags(self, filter_: Filter, rows: Rows, passing: BitMap, version: int | None) -> Flags:
        return flags_of(rows, passing) if version is None else self._flag_reader.of(filter_, rows, passing, version)

    async def _look_up(
        self, filter_: Filter, item_ids: Sequence[str], deadline: Deadline, use: CatalogUse
    ) -> Flags | None:
        use.database_calls += 1
        try:
            found = await self._check.look_ups_of(filter_, reads_metadata=False).find(item_ids, self.soon(deadline))
        except AnnserveError:
            return None
        return np.array([item_id in found.metadata for item_id in item_ids], np.bool_)

    def _bound(self, max_staleness_seconds: float | None) -> float:
        return self._settings.max_staleness_seconds if max_staleness_seconds is None else max_staleness_seconds


def _retrieve(build: asyncio.Future[LeafBitmap]) -> None:
    if not build.cancelled():
        build.exception()
