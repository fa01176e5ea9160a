"""The catalogue in a file, held in memory as columns: the embedded default."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from annserve.catalog.columns import Columns, ColumnsBuilder, Rows
from annserve.catalog.documents import read_documents, write_documents
from annserve.catalog.drift import DriftCount
from annserve.catalog.file_histories import FileHistories
from annserve.domain.catalog import (
    Change,
    ChangesLostError,
    Document,
    FieldDrift,
    HistoryEntry,
    Metadata,
    Schema,
)
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import InputError
from annserve.domain.filter import Field, Filter, Leaf
from annserve.domain.ids import check_item_id
from annserve.domain.progress import Progress, no_progress
from annserve.snapshot.files import locked, sync

LOOK_SECONDS = 0.1
"""How often the file is looked at for changes."""

_CHUNK = 1_000
_REPORT_EVERY = 1_000
_READ_AT_ONCE_BYTES = 1 << 14
"""So much of a log of histories is read on the event loop: about 0.5 ms of it."""
_WRITABLE = (".jsonl", ".ndjson")

_Version: TypeAlias = tuple[int, int, int]
"""What a file's replacement changes: inode, size, time of its last change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Items:
    """What the file held when it was read."""

    version: _Version | None
    ids: Sequence[str]
    rows: Mapping[str, int]
    """By id, its row; of an id that occurs twice the last."""
    columns: Columns


class FileCatalog:
    """Items in a Parquet, CSV, TSV or JSON Lines file, histories in a log beside.

    Only JSON Lines are written to. A file that is replaced from outside is read anew within a moment; a broken one is
    passed over until it is whole.

    Args:
        path: The file of items.
        schema: The declared fields.
        histories_path: The log; None for a catalogue without histories.
        id_column: The column that holds the item's id.
        create: Whether a file that is not there counts as empty.

    Raises:
        InputError: the file cannot be read; TooManyBadRowsError, too little of it is of use.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        histories_path: Path | None = None,
        *,
        id_column: str = "item_id",
        create: bool = False,
    ) -> None:
        self._path = path
        self._schema = schema
        self._id_column = id_column
        self._create = create
        self._histories = None if histories_path is None else FileHistories(histories_path)
        self._catching_up = asyncio.Lock()
        self._items = self._read()

    @property
    def schema(self) -> Schema:
        """The declared fields."""
        return self._schema

    @property
    def available(self) -> bool:
        """True: it is in memory."""
        return True

    async def matching(self, leaf: Leaf | None, deadline: Deadline = NO_DEADLINE) -> AsyncIterator[Sequence[str]]:
        """Yield the ids of all items that pass ``leaf``, or of all."""
        items = self._items
        rows = range(len(items.ids)) if leaf is None else items.columns.matching_rows(leaf).tolist()
        chunk: list[str] = []
        for row in rows:
            if items.rows[items.ids[row]] == row:
                chunk.append(items.ids[row])
            if len(chunk) == _CHUNK:
                deadline.check("reading the catalogue")
                yield chunk
                chunk = []
        yield chunk

    async def select(
        self,
        item_ids: Sequence[str],
        filter_: Filter | None = None,
        fields: Sequence[Field] = (),
        deadline: Deadline = NO_DEADLINE,
    ) -> Mapping[str, Metadata]:
        """Return, by id, the declared ``fields`` of those items that exist and pass ``filter_``."""
        deadline.check("reading the catalogue")
        items = self._items
        rows: Rows = np.array([row for id_ in item_ids if (row := items.rows.get(id_)) is not None], dtype=np.intp)
        if filter_ is not None and len(rows):
            rows = rows[items.columns.mask_among(rows, filter_)]
        found = items.columns.metadata(rows, fields)
        return {items.ids[row]: metadata for row, metadata in zip(rows.tolist(), found, strict=True)}

    async def history(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[HistoryEntry]:
        """Return the newest entries of a user, oldest first."""
        deadline.check("reading a history")
        if self._histories is None:
            return []
        async with self._catching_up:
            behind_bytes = self._histories.behind_bytes()
            if behind_bytes > _READ_AT_ONCE_BYTES:
                await asyncio.to_thread(self._histories.catch_up)
            elif behind_bytes:
                self._histories.catch_up()
        return self._histories.newest(user_id, newest)

    async def add_history(
        self, user_id: str, entries: Sequence[HistoryEntry], deadline: Deadline = NO_DEADLINE
    ) -> None:
        """Add to a user's history."""
        deadline.check("writing a history")
        if self._histories is None:
            raise InputError("this catalogue has no histories: name a file for them")
        self._histories.add(user_id, entries)

    async def erase_history(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> int:
        """Forget a user, and return how many entries that were."""
        deadline.check("writing a history")
        return 0 if self._histories is None else self._histories.erase(user_id)

    async def upsert(
        self, documents: Iterable[tuple[str, Document]], progress: Progress = no_progress, total: int | None = None
    ) -> int:
        """Write whole documents by item id into the file, replacing it, and return how many.

        Raises:
            InputError: an id is none, the file is no JSON Lines, or a document holds what JSON cannot; then nothing
                is written.
        """
        written: dict[str, Document] = {}
        count = 0
        for item_id, document in documents:
            check_item_id(item_id)
            written[item_id] = document
            count += 1
            if count % _REPORT_EVERY == 0:
                progress("writing items", count, total)
        progress("writing items", count, count)
        with self._writing():
            self._replace({**self._documents(), **written})
        return count

    async def delete(self, item_ids: Sequence[str]) -> int:
        """Delete items, and return how many there were; raises as `upsert`."""
        with self._writing():
            stored = self._documents()
            count = sum(stored.pop(item_id, None) is not None for item_id in set(item_ids))
            self._replace(stored)
        return count

    async def changes(self) -> AsyncIterator[Sequence[Change]]:
        """Yield that nothing changed, several times a second, until the file is another.

        Raises:
            ChangesLostError: the file was replaced: what it holds now is not compared with what it held.
        """
        followed = self._items
        while True:
            if self._items is followed and self._version() != followed.version:
                try:
                    self._items = await asyncio.to_thread(self._read)
                except InputError:
                    # Half of it may be there yet; what was read before goes on to serve.
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
            if self._items is not followed:
                raise ChangesLostError(f"{self._path} was replaced")
            yield ()
            await asyncio.sleep(LOOK_SECONDS)

    async def drift(self, progress: Progress = no_progress) -> Sequence[FieldDrift]:
        """Return how the documents differ from the declared fields."""
        count = DriftCount(self._schema)
        for number, (item_id, document) in enumerate(self._documents().items(), 1):
            count.add(item_id, document)
            if number % _REPORT_EVERY == 0:
                progress("reading items", number, len(self._items.ids))
        return count.fields()

    async def ensure_indexes(self) -> Sequence[str]:
        """Do nothing: columns are looked through in milliseconds."""
        return ()

    async def close(self) -> None:
        """Let go of the files."""
        if self._histories is not None:
            self._histories.close()

    def _version(self) -> _Version | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _read(self) -> _Items:
        version = self._version()
        builder, ids = ColumnsBuilder(self._schema.fields.values()), []
        if version is not None or not self._create:
            for item_id, document in read_documents(self._path, self._schema, id_column=self._id_column):
                ids.append(item_id)
                builder.add(document)
        rows = {item_id: row for row, item_id in enumerate(ids)}
        return _Items(version=version, ids=ids, rows=rows, columns=builder.columns())

    def _documents(self) -> dict[str, Document]:
        if self._version() is None:
            return {}
        return dict(read_documents(self._path, self._schema, id_column=self._id_column))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep other writers out from reading the file until it is replaced, or one would undo what the other did."""
        with ExitStack() as held:
            try:
                held.enter_context(locked(self._path.with_name(f".{self._path.name}.lock")))
            except OSError as error:
                raise InputError(f"{self._path} cannot be written: {error}", path=self._path) from error
            yield

    def _replace(self, documents: Mapping[str, Document]) -> None:
        if self._path.suffix.lower() not in _WRITABLE:
            raise InputError(
                f"{self._path} is read only: write it with what made it, or keep the catalogue as JSON Lines (.jsonl)",
                path=self._path,
            )
        # One name for all writers: the lock keeps them apart, and what a killed one leaves the next one overwrites.
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            write_documents(temporary, documents.items(), self._id_column)
            sync(temporary)
            temporary.replace(self._path)
            sync(self._path.parent)
        except OSError as error:
            raise InputError(f"{self._path} cannot be written: {error}", path=self._path) from error
        finally:
            temporary.unlink(missing_ok=True)
        self._items = self._read()
