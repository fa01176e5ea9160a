"""A catalogue in memory that answers when a test says so, and counts."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pyroaring import BitMap

from annserve.cache.bitmaps import BitmapCache, LeafBitmap
from annserve.catalog.evaluate import matches, metadata_of
from annserve.domain.catalog import HistoryEntry, Metadata, Schema
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import AnnserveError
from annserve.domain.filter import Field, FieldType, Filter, Leaf
from annserve.snapshot.ids import IdIndex

SCHEMA = Schema(
    [
        Field(name="price", type=FieldType.NUMBER, path="price"),
        Field(name="kind", type=FieldType.STRING, path="kind"),
    ]
)
PRICE, KIND = SCHEMA.fields["price"], SCHEMA.fields["kind"]


class TwinCatalog:
    """Holds documents by item id; `slow` is a gate that every look-up waits for."""

    schema = SCHEMA

    def __init__(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        self.documents = {item_id: dict(document) for item_id, document in documents.items()}
        self.histories: dict[str, list[HistoryEntry]] = {}
        self.available = True
        self.error: AnnserveError | None = None
        self.selected: list[tuple[str, ...]] = []
        self.history_calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def select(
        self,
        item_ids: Sequence[str],
        filter_: Filter | None = None,
        fields: Sequence[Field] = (),
        _deadline: Deadline = NO_DEADLINE,
    ) -> Mapping[str, Metadata]:
        self.selected.append(tuple(item_ids))
        await self._answer()
        known = {item_id: self.documents[item_id] for item_id in item_ids if item_id in self.documents}
        return {
            item_id: metadata_of(fields, document)
            for item_id, document in known.items()
            if filter_ is None or matches(filter_, document)
        }

    async def history(self, user_id: str, newest: int, _deadline: Deadline = NO_DEADLINE) -> Sequence[HistoryEntry]:
        self.history_calls += 1
        await self._answer()
        return self.histories.get(user_id, [])[-newest:]

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        await self.gate.wait()
        if self.error is not None:
            raise self.error

    def passing(self, filter_: Filter | None) -> set[str]:
        """Return the ids of the items that pass."""
        return {
            item_id for item_id, document in self.documents.items() if filter_ is None or matches(filter_, document)
        }


class TwinBuilder:
    """Builds bitmaps when a test lets it: `build` is what the engine asks, `finish` answers."""

    def __init__(self, store: TwinCatalog, items: IdIndex, bitmaps: BitmapCache) -> None:
        self._store, self._items, self._bitmaps = store, items, bitmaps
        self.asked: dict[Leaf | None, asyncio.Future[LeafBitmap]] = {}
        self.since: dict[Leaf | None, float] = {}

    def build(self, leaf: Leaf | None, since: float = math.inf) -> asyncio.Future[LeafBitmap]:
        self.since[leaf] = since
        if leaf not in self.asked:
            self.asked[leaf] = asyncio.get_running_loop().create_future()
        return self.asked[leaf]

    def finish(self, leaf: Leaf | None) -> LeafBitmap:
        """Read ``leaf`` into the cache, and tell whoever waits."""
        rows = (self._items.row(item_id) for item_id in self._store.passing(leaf))
        bitmap = LeafBitmap(leaf=leaf, bitmap=BitMap(row for row in rows if row is not None), read_at=time.monotonic())
        self._bitmaps.put(bitmap)
        waiting = self.asked.get(leaf)
        if waiting is not None and not waiting.done():
            waiting.set_result(bitmap)
        return bitmap
