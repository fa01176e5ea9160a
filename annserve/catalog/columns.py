"""Declared fields of many documents as arrays, so that a test looks at a million of them in a few milliseconds.

It passes exactly the documents that `annserve.catalog.evaluate.matches` does. Memory per document and field: 6 bytes,
and for each value 4 and those of `annserve.catalog.column_values` (8 for a number, 4 for a string and its text once).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import partial, reduce
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from annserve.catalog.column_values import Collector, Values, collector
from annserve.catalog.evaluate import comparables, found_at, parts_of
from annserve.domain.catalog import Document, Metadata
from annserve.domain.filter import And, Exists, Field, Filter, Leaf, Not, Or, Scalar, leaves_of

Mask: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = npt.NDArray[np.intp]


class Columns:
    """The declared fields of documents ``0 .. n - 1``; nothing changes them, so threads may share them."""

    def __init__(self, row_count: int, columns: Mapping[Field, _Column]) -> None:
        self.row_count = row_count
        self._columns = columns

    @classmethod
    def of(cls, fields: Iterable[Field], documents: Iterable[Document]) -> Columns:
        """Return the ``fields`` of ``documents``."""
        builder = ColumnsBuilder(fields)
        for document in documents:
            builder.add(document)
        return builder.columns()

    @property
    def size_bytes(self) -> int:
        """The size of the arrays; the texts of strings come on top."""
        return sum(column.size_bytes for column in self._columns.values())

    def matching_rows(self, leaf: Leaf) -> Rows:
        """Return the documents that pass ``leaf``, ascending.

        Raises:
            KeyError: its field is none of these.
        """
        return self._columns[leaf.field].matching_rows(leaf)

    def mask(self, filter_: Filter) -> Mask:
        """Return for each document whether it passes ``filter_``; raises as `matching_rows`."""
        match filter_:
            case And(filters):
                return reduce(np.logical_and, map(self.mask, filters))
            case Or(filters):
                return reduce(np.logical_or, map(self.mask, filters))
            case Not(inner):
                return ~self.mask(inner)
            case _:
                mask = np.zeros(self.row_count, dtype=bool)
                mask[self.matching_rows(filter_)] = True
                return mask

    def mask_among(self, rows: Rows, filter_: Filter) -> Mask:
        """Return for each of ``rows`` whether it passes ``filter_``, looking at no others."""
        fields = {leaf.field for leaf in leaves_of(filter_)}
        return Columns(len(rows), {field: self._columns[field].take(rows) for field in fields}).mask(filter_)

    def metadata(self, rows: Rows, fields: Iterable[Field]) -> Sequence[Metadata]:
        """Return the values of ``fields`` in each of ``rows``, as `annserve.catalog.evaluate.metadata_of` does."""
        found: list[dict[str, tuple[Scalar, ...]]] = [{} for _ in range(len(rows))]
        for field in fields:
            for position, scalars in self._columns[field].take(rows).scalars(field.many).items():
                found[position][field.name] = tuple(scalars)
        return found


class ColumnsBuilder:
    """Takes documents one by one."""

    def __init__(self, fields: Iterable[Field]) -> None:
        self._columns = [(field, _ColumnBuilder(field)) for field in fields]
        self._row_count = 0

    def add(self, document: Document) -> None:
        """Add the next document."""
        for field, column in self._columns:
            column.add(self._row_count, found_at(field.path, document))
        self._row_count += 1

    def columns(self) -> Columns:
        """Return the columns of what was added; nothing can be added afterwards."""
        return Columns(self._row_count, {field: column.column() for field, column in self._columns})


class _Column:
    """One field: entries, which are a document's row and one value in it, ascending by row."""

    def __init__(self, exists: Mask, is_one: Mask, entry_rows: npt.NDArray[np.int32], values: Values) -> None:
        self._exists = exists
        self._is_one = is_one
        """Whether there is one value that is no list, of whatever type."""
        self._entry_rows = entry_rows
        self._values = values
        self._starts = np.append(0, np.cumsum(np.bincount(entry_rows, minlength=len(exists)))).astype(np.int32)
        self._is_flat = bool((entry_rows[1:] != entry_rows[:-1]).all())

    @property
    def size_bytes(self) -> int:
        arrays = (self._exists, self._is_one, self._entry_rows, self._starts)
        return sum(one.nbytes for one in arrays) + self._values.size_bytes

    def matching_rows(self, leaf: Leaf) -> Rows:
        if isinstance(leaf, Exists):
            return np.flatnonzero(self._exists)
        if self._is_flat:
            return self._rows_of(self._values.mask(leaf))
        parts = (_without_repeats(self._rows_of(self._values.mask(part))) for part in parts_of(leaf))
        return reduce(partial(np.intersect1d, assume_unique=True), parts)

    def _rows_of(self, mask: Mask) -> Rows:
        return self._entry_rows[np.flatnonzero(mask)].astype(np.intp)

    def take(self, rows: Rows) -> _Column:
        starts = self._starts[rows]
        counts = self._starts[rows + 1] - starts
        ends = np.cumsum(counts)
        entries = np.arange(counts.sum()) + np.repeat(starts - ends + counts, counts)
        return _Column(
            self._exists[rows],
            self._is_one[rows],
            np.repeat(np.arange(len(rows), dtype=np.int32), counts),
            self._values.take(entries),
        )

    def scalars(self, many: bool) -> Mapping[int, Sequence[Scalar]]:
        """Return by row what can be returned to callers, for rows that have such."""
        scalars: dict[int, list[Scalar]] = {}
        for row, scalar in zip(self._entry_rows.tolist(), self._values.scalars(), strict=True):
            if scalar is not None and (many or self._is_one[row]):
                scalars.setdefault(row, []).append(scalar)
        return scalars


class _ColumnBuilder:
    def __init__(self, field: Field) -> None:
        self._type = field.type
        self._exists = bytearray()
        self._is_one = bytearray()
        self._entry_rows = array("i")
        self._collector: Collector = collector(field.type)

    def add(self, row: int, found: Sequence[object]) -> None:
        self._exists.append(len(found) > 0)
        self._is_one.append(len(found) == 1 and not isinstance(found[0], list | tuple))
        for value in comparables(self._type, found):
            self._entry_rows.append(row)
            self._collector.add(value)

    def column(self) -> _Column:
        return _Column(
            np.frombuffer(self._exists, dtype=bool),
            np.frombuffer(self._is_one, dtype=bool),
            np.frombuffer(self._entry_rows, dtype=np.int32),
            self._collector.values(),
        )


def _without_repeats(rows: Rows) -> Rows:
    return rows[np.append(True, rows[1:] != rows[:-1])] if len(rows) else rows
