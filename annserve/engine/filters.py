"""From a filter to rows: the bitmaps of its leaves, combined, or what is known while some are missing.

A filter over leaves that are partly unknown has two bounds (Kleene's three-valued logic over sets): the rows certain
to pass, and the rows that may. Where they meet, the filter is resolved; between them, candidates have to be checked.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import Protocol, TypeAlias

from cachetools import LRUCache
from pyroaring import BitMap

from annserve.cache.bitmaps import BitmapCache, LeafBitmap
from annserve.domain.filter import And, Filter, Leaf, Not, Or, leaves_of
from annserve.domain.query import CatalogUse
from annserve.search.restriction import Restriction

_RESTRICTIONS_KEPT = 64

_Bounds: TypeAlias = tuple[BitMap, BitMap | None]
"""Rows certain to pass, and rows that may; None for all rows of the snapshot."""

_Known: TypeAlias = Mapping[Leaf | None, LeafBitmap]


class LeafBuilder(Protocol):
    """Reads leaves from the catalogue; the keeper does."""

    def build(self, leaf: Leaf | None, since: float = math.inf) -> asyncio.Future[LeafBitmap]:
        """Read the rows that pass ``leaf`` (None: those of all items) into the cache; equal builds are one.

        What is known to have been so at ``since`` or later, in monotonic seconds, need not be read.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What is known of the rows that pass one filter."""

    certain: BitMap
    """Rows known to pass; must not be changed."""
    possible: Restriction | None
    """The rows not known to fail; None for all."""
    missing: tuple[Leaf | None, ...]
    """What has to be read to know more; empty when `possible` is exactly what passes."""
    age_seconds: float | None
    """How old that is; None where nothing was needed of the catalogue."""


class Filters:
    """Resolves filters over the rows of one snapshot. One event loop uses it."""

    def __init__(self, bitmaps: BitmapCache, row_count: int, all_in: Callable[[BitMap], bool]) -> None:
        """Combine ``bitmaps`` over a snapshot of ``row_count`` rows; ``all_in`` says whether some hold all items."""
        self._bitmaps = bitmaps
        self._row_count = row_count
        self._all_in = all_in
        self._restrictions: LRUCache[Filter | None, tuple[tuple[int, ...], Restriction]] = LRUCache(_RESTRICTIONS_KEPT)

    def open(self) -> Resolved:
        """Return the rows that are in the catalogue, whatever their metadata, as far as that has been read."""
        present = self._bitmaps.present
        if present is None:
            return Resolved(certain=BitMap(), possible=None, missing=(None,), age_seconds=None)
        if self._all_in(present.bitmap):
            return Resolved(certain=present.bitmap, possible=None, missing=(), age_seconds=None)
        restriction = self._restriction(None, {None: present})
        age_seconds = self._bitmaps.age_seconds(present, time.monotonic())
        return Resolved(certain=restriction.whole, possible=restriction, missing=(), age_seconds=age_seconds)

    def versions(
        self, filter_: Filter | None, max_staleness_seconds: float
    ) -> tuple[tuple[int, ...], float | None] | None:
        """Return the versions of all that ``filter_`` is resolved with, and how old it is; None where some is missing.

        Neither where nothing is needed of the catalogue: see `open`.
        """
        now = time.monotonic()
        if filter_ is None:
            present = self._bitmaps.present
            if present is None or self._all_in(present.bitmap):
                return None if present is None else ((), None)
            return (present.version,), self._bitmaps.age_seconds(present, now)
        versions: list[int] = []
        age_seconds = 0.0
        for leaf in _needed(filter_):
            found = self._bitmaps.present if leaf is None else self._bitmaps.get(leaf)
            if found is None:
                return None
            versions.append(found.version)
            age_seconds = max(age_seconds, self._bitmaps.age_seconds(found, now))
        return None if age_seconds > max_staleness_seconds else (tuple(versions), age_seconds)

    def resolve(
        self,
        filter_: Filter,
        max_staleness_seconds: float,
        use: CatalogUse,
        built: Mapping[Leaf | None, LeafBitmap] | None = None,
    ) -> Resolved:
        """Return what is known of ``filter_``, a canonical one.

        Args:
            filter_: The filter.
            max_staleness_seconds: A bitmap that is older counts as missing.
            use: Told how many leaves were known.
            built: Bitmaps that count however old they are, the cache aside.
        """
        now = time.monotonic()
        known: dict[Leaf | None, LeafBitmap] = dict(built or {})
        missing: list[Leaf | None] = []
        for leaf in _needed(filter_):
            if leaf in known:
                continue
            found = self._bitmaps.present if leaf is None else self._bitmaps.get(leaf)
            if found is None or self._bitmaps.age_seconds(found, now) > max_staleness_seconds:
                missing.append(leaf)
            else:
                known[leaf] = found
        if built is None:
            use.bitmap_hits += len(known)
            use.bitmap_misses += len(missing)
        age_seconds = max((self._bitmaps.age_seconds(bitmap, now) for bitmap in known.values()), default=None)
        if not missing:
            restriction = self._restriction(filter_, known)
            return Resolved(certain=restriction.whole, possible=restriction, missing=(), age_seconds=age_seconds)
        certain, possible = _bounds(filter_, known)
        return Resolved(
            certain=certain,
            possible=None if possible is None else Restriction.over(possible, self._row_count),
            missing=tuple(missing),
            age_seconds=age_seconds,
        )

    def passing(
        self, filter_: Filter, max_staleness_seconds: float, use: CatalogUse
    ) -> tuple[BitMap, int | None] | None:
        """Return the rows that pass ``filter_``, in a bitmap that may change in the next step; None while not known.

        A bitmap of one leaf comes with its version, which has no other content.
        """
        if isinstance(filter_, And | Or | Not):
            resolved = self.resolve(filter_, max_staleness_seconds, use)
            return None if resolved.missing else (resolved.certain, None)
        found = self._bitmaps.get(filter_)
        if found is None or self._bitmaps.age_seconds(found, time.monotonic()) > max_staleness_seconds:
            use.bitmap_misses += 1
            return None
        use.bitmap_hits += 1
        return found.bitmap, found.version

    def missing(self, filter_: Filter, max_staleness_seconds: float) -> tuple[Leaf | None, ...]:
        """Return what has to be read to know more of ``filter_``."""
        return self.resolve(filter_, max_staleness_seconds, CatalogUse()).missing

    def _restriction(self, filter_: Filter | None, known: _Known) -> Restriction:
        """Return the rows that pass, with all that was learned of them while they, or nearly the same, were in use."""
        versions = tuple(bitmap.version for bitmap in known.values())
        kept = self._restrictions.get(filter_)
        if kept is not None and kept[0] == versions:
            return kept[1]
        passing = known[None].bitmap.copy() if filter_ is None else _bounds(filter_, known)[0]
        restriction = Restriction.over(passing, self._row_count) if kept is None else kept[1].succeeded_by(passing)
        self._restrictions[filter_] = (versions, restriction)
        return restriction


def _needed(filter_: Filter) -> Iterator[Leaf | None]:
    """Return the leaves of ``filter_``, each once; and None where what passes is told from all there is."""
    yield from dict.fromkeys(leaves_of(filter_))
    if _negates(filter_):
        yield None


def _negates(filter_: Filter) -> bool:
    match filter_:
        case Not():
            return True
        case And(filters) | Or(filters):
            return any(map(_negates, filters))
        case _:
            return False


def _bounds(filter_: Filter, known: _Known) -> _Bounds:
    """Return new bitmaps: nothing that was combined is changed by a change of what it was combined from."""
    match filter_:
        case And(filters):
            parts = [_bounds(part, known) for part in filters]
            limits = [possible for _, possible in parts if possible is not None]
            return reduce(and_, (certain for certain, _ in parts)), reduce(and_, limits) if limits else None
        case Or(filters):
            parts = [_bounds(part, known) for part in filters]
            limits = [possible for _, possible in parts if possible is not None]
            whole = len(limits) == len(parts)
            return reduce(or_, (certain for certain, _ in parts)), reduce(or_, limits) if whole else None
        case Not(inner):
            certain, possible = _bounds(inner, known)
            present = known.get(None)
            if present is None:
                return BitMap(), None
            return BitMap() if possible is None else present.bitmap - possible, present.bitmap - certain
        case _:
            bitmap = known.get(filter_)
            if bitmap is None:
                return BitMap(), None
            rows = bitmap.bitmap.copy()
            return rows, rows
