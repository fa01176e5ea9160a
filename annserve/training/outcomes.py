"""Interactions from what users did: outcomes among events, and entries of histories, each with a weight of its kind.

What users did not like is no taste, and what they were merely shown is none either: only what has a weight counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from annserve.domain.catalog import StoredEntry
from annserve.domain.events import Event, EventType
from annserve.domain.progress import Progress, no_progress
from annserve.training.columns import TimeUnit
from annserve.training.interactions import Collector, Interactions
from annserve.training.readers import Chunk

_ROLES = {"user": "user_id", "item": "item_id", "weight": "weight", "time": "time"}
_EVENTS, _HISTORIES = Path("events"), Path("histories")

_Row: TypeAlias = tuple[object, object, float, int | None]
"""User, item, weight, milliseconds since 1970; whoever wrote to the store may have written anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeWeights:
    """What counts how much in training, above 0; what is not here does not count."""

    of_types: Mapping[EventType, float]
    of_words: Mapping[str, float]
    """Of entries of histories, by what they say was done."""


@dataclass(slots=True)
class _Outcomes:
    weights: OutcomeWeights
    collector: Collector = field(default_factory=Collector)
    others: Counter[str] = field(default_factory=Counter)
    counts: Counter[Path] = field(default_factory=Counter)

    def add_events(self, events: Iterable[Event]) -> None:
        self._add(
            _EVENTS,
            [
                (event.user_id, item_id, self.weights.of_types[event.type], event.time_ms)
                for event in events
                for item_id in event.item_ids
            ],
        )

    def add_entries(self, entries: Iterable[StoredEntry], until_ms: int) -> None:
        rows: list[_Row] = []
        for entry in entries:
            weight = self.weights.of_words.get(entry.event or "")
            if weight is None:
                self.others[entry.event or ""] += 1
            elif entry.time_ms is None or entry.time_ms < until_ms:
                rows.append((entry.user_id, entry.item_id, weight, entry.time_ms))
        self._add(_HISTORIES, rows)

    def _add(self, source: Path, rows: Sequence[_Row]) -> None:
        first = self.counts[source] + 1
        self.counts[source] += len(rows)
        users, items, weights, times = zip(*rows, strict=True) if rows else ((), (), (), ())
        chunk = Chunk(
            columns=(_texts(users), _texts(items), pa.array(weights, pa.float64()), pa.array(times, pa.int64())),
            rows=np.arange(first, first + len(rows)),
            broken=(),
            bytes_read=0,
        )
        self.collector.add(source, chunk, _ROLES, TimeUnit.MILLISECONDS)


async def read_outcomes(
    events: AsyncIterator[Sequence[Event]],
    histories: AsyncIterator[Sequence[StoredEntry]] | None,
    weights: OutcomeWeights,
    until_ms: int,
    *,
    max_bad_share: float = 0.01,
    progress: Progress = no_progress,
) -> tuple[Interactions, Mapping[str, int]]:
    """Return the interactions that ``events`` and ``histories`` tell of, and how many entries say what has no weight.

    Bad rows are left out and counted as `interactions.read_interactions` does, and memory is the same.

    Args:
        events: Of types that have a weight, before ``until_ms``, in chunks; an item is an interaction.
        histories: Entries of all users, in chunks, of any kind; those of ``until_ms`` or later are passed over.
        weights: What counts how much.
        until_ms: Milliseconds since 1970, UTC.
        max_bad_share: Bad rows allowed, as a share of all rows, 0 to 1.
        progress: Told the rows read.

    Raises:
        TooManyBadRowsError: more bad rows than ``max_bad_share``.
        InputError: no usable row is left.
        CatalogUnavailableError: the store does not answer.
    """
    outcomes = _Outcomes(weights)
    async for chunk in events:
        outcomes.add_events(chunk)
        progress("reading events", outcomes.counts[_EVENTS], None)
    if histories is not None:
        async for entries in histories:
            outcomes.add_entries(entries, until_ms)
            progress("reading histories", outcomes.counts[_HISTORIES], None)
    return outcomes.collector.interactions(max_bad_share), dict(outcomes.others)


def _texts(values: Iterable[object]) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in values]
