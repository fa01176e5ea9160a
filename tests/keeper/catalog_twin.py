"""A catalogue in memory whose changes a test tells, loses and holds back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import NoReturn, cast

from annserve.catalog.evaluate import matches
from annserve.domain.catalog import (
    CatalogStore,
    Change,
    ChangesLostError,
    ChangesUnsupportedError,
    Document,
    FieldDrift,
    HistoryEntry,
    Metadata,
    Schema,
)
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import CatalogUnavailableError
from annserve.domain.filter import Equals, Field, FieldType, Filter, Leaf, Range
from annserve.domain.progress import Progress, no_progress

PRICE = Field(name="price", type=FieldType.NUMBER, path="price")
COLOUR = Field(name="colour", type=FieldType.STRING, path="colour")
CHEAP = Range(PRICE, maximum=5.0)
DEAR = Range(PRICE, minimum=8.0)
RED = Equals(COLOUR, "red")
LEAVES: tuple[Leaf, ...] = (CHEAP, DEAR, RED)


class Rows(dict[str, int]):
    """The rows of a snapshot."""

    def row(self, id_: str) -> int | None:
        return self.get(id_)

    @classmethod
    def numbered(cls, count: int) -> Rows:
        return cls((f"i{row}", row) for row in range(count))


class CatalogTwin:
    """Implements what the keeper uses of `CatalogStore`, over `documents`."""

    def __init__(self, documents: Mapping[str, Document] | None = None, *, ids_a_chunk: int = 3) -> None:
        self.schema = Schema([PRICE, COLOUR])
        self.documents: dict[str, Document] = dict(documents or {})
        self.log: list[Change] = []
        self.streams: list[TwinChanges] = []
        self.available = True
        self.tells_changes = True
        self.problem: Exception | None = None
        """What reading a leaf raises."""
        self.reads: list[Leaf | None] = []
        self.reading = 0
        self.most_at_once = 0
        self.gate = asyncio.Event()
        """Reads stop before their first chunk until it is set."""
        self.gate.set()
        self.selected: list[tuple[str, ...]] = []
        self.select_gate = asyncio.Event()
        """Look-ups that have read do not return until it is set."""
        self.select_gate.set()
        self.steps_a_chunk: Callable[[], int] = lambda: 1
        """How often the loop goes round from chunk to chunk."""
        self._ids_a_chunk = ids_a_chunk

    def write(self, item_id: str, document: Document | None) -> None:
        if document is None:
            self.documents.pop(item_id, None)
        else:
            self.documents[item_id] = document
        self.log.append(Change(item_id=item_id, document=document))

    def lose_changes(self) -> None:
        for stream in self.streams:
            stream.lost = True

    def rows_passing(self, leaf: Leaf | None, rows: Rows) -> set[int]:
        return {
            rows[item_id]
            for item_id, document in self.documents.items()
            if item_id in rows and (leaf is None or matches(leaf, document))
        }

    async def matching(self, leaf: Leaf | None, deadline: Deadline = NO_DEADLINE) -> AsyncIterator[Sequence[str]]:
        del deadline
        self.reads.append(leaf)
        self.reading += 1
        self.most_at_once = max(self.most_at_once, self.reading)
        try:
            await self.gate.wait()
            ids = sorted({*self.documents, *(change.item_id for change in self.log)})
            for start in range(0, len(ids), self._ids_a_chunk):
                if not self.available:
                    raise CatalogUnavailableError("it is down")
                if self.problem is not None:
                    raise self.problem
                # As a cursor does, each chunk sees the documents of its own moment.
                chunk = [id_ for id_ in ids[start : start + self._ids_a_chunk] if id_ in self.documents]
                yield [id_ for id_ in chunk if leaf is None or matches(leaf, self.documents[id_])]
                for _ in range(self.steps_a_chunk()):
                    await asyncio.sleep(0)
        finally:
            self.reading -= 1

    def changes(self) -> AsyncIterator[Sequence[Change]]:
        stream = TwinChanges(self)
        self.streams.append(stream)
        return stream

    async def select(
        self,
        item_ids: Sequence[str],
        filter_: Filter | None = None,
        fields: Sequence[Field] = (),
        deadline: Deadline = NO_DEADLINE,
    ) -> Mapping[str, Metadata]:
        del fields, deadline
        self.selected.append(tuple(item_ids))
        found = [
            item_id
            for item_id in item_ids
            if item_id in self.documents
            and (filter_ is None or matches(cast("Leaf", filter_), self.documents[item_id]))
        ]
        await self.select_gate.wait()
        if not self.available:
            raise CatalogUnavailableError("it is down")
        return {item_id: {} for item_id in found}

    async def history(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[HistoryEntry]:
        _unused(user_id, newest, deadline)

    async def add_history(
        self, user_id: str, entries: Sequence[HistoryEntry], deadline: Deadline = NO_DEADLINE
    ) -> None:
        _unused(user_id, entries, deadline)

    async def erase_history(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> int:
        _unused(user_id, deadline)

    async def upsert(
        self, documents: Iterable[tuple[str, Document]], progress: Progress = no_progress, total: int | None = None
    ) -> int:
        _unused(documents, progress, total)

    async def delete(self, item_ids: Sequence[str]) -> int:
        _unused(item_ids)

    async def drift(self, progress: Progress = no_progress) -> Sequence[FieldDrift]:
        _unused(progress)

    async def ensure_indexes(self) -> Sequence[str]:
        _unused()

    async def close(self) -> None:
        _unused()


class TwinChanges(AsyncIterator[Sequence[Change]]):
    """Tells of the log from the first sequence on, at most three changes at a time."""

    def __init__(self, twin: CatalogTwin) -> None:
        self._twin = twin
        self._position: int | None = None
        self.lost = False
        self.drained_at = -1
        """How long the log was when whoever follows had heard all of it and been told so."""
        self._said_so = False
        self.held = False
        """Whether it says nothing at all."""

    async def __anext__(self) -> Sequence[Change]:
        if self._said_so and self._position is not None:
            self.drained_at = self._position
        await asyncio.sleep(0)
        while self.held:
            await asyncio.sleep(0.001)
        if not self._twin.tells_changes:
            raise ChangesUnsupportedError
        if self.lost:
            raise ChangesLostError("on purpose")
        if not self._twin.available:
            raise CatalogUnavailableError("it is down")
        if self._position is None:
            self._position = len(self._twin.log)
        told = self._twin.log[self._position : self._position + 3]
        self._position += len(told)
        self._said_so = not told
        return told


def _unused(*_: object) -> NoReturn:
    raise NotImplementedError


_: type[CatalogStore] = CatalogTwin
