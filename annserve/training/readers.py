"""Tables on disk, read a chunk at a time: Parquet, CSV, TSV, JSON Lines, Matrix Market.

Parquet arrives as Arrow columns. The text formats arrive as lists of text, field by field as it is written, so that a
row that cannot be split is counted with its reason and the rest of the file is still read.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from annserve.domain.errors import InputError
from annserve.training.records import Record, check_columns, csv_records, json_records, matrix_records, tsv_records

Column: TypeAlias = Any
"""An Arrow array, or a sequence of ``str`` (as written in the file) and None (absent)."""


class Format(str, Enum):
    """How a table is written."""

    PARQUET = "parquet"
    CSV = "csv"
    TSV = "tsv"
    JSON_LINES = "jsonl"
    MATRIX_MARKET = "mtx"


_SUFFIXES = {
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".jsonl": Format.JSON_LINES,
    ".ndjson": Format.JSON_LINES,
    ".mtx": Format.MATRIX_MARKET,
}
_PARSERS: dict[Format, Callable[[Path, Iterable[str], Sequence[str]], Iterator[Record]]] = {
    Format.CSV: csv_records,
    Format.TSV: tsv_records,
    Format.JSON_LINES: json_records,
    Format.MATRIX_MARKET: matrix_records,
}
_CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
# A row of text costs some 300 bytes as Python strings, one of Arrow some 30.
_PARQUET_CHUNK_ROWS = 1 << 20
_TEXT_CHUNK_ROWS = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some consecutive rows of a file. Rows are counted from 1; a header and blank lines are no rows."""

    columns: tuple[Column, ...]
    """The columns asked for, in that order, parallel to `rows`."""
    rows: npt.NDArray[np.int64]
    broken: Sequence[tuple[int, str]]
    """Rows that could not be split into fields, and why."""
    bytes_read: int
    """How much of the file has been read so far, on disk."""


def files_of(path: Path, format_: Format | None = None) -> list[Path]:
    """Return ``path``, or the tables in the folder ``path`` (and below) by name.

    In a folder, names that start with ``_`` or ``.`` are left out, and so, without ``format_``, are unknown suffixes.

    Raises:
        InputError: there is no such file, or no table in the folder.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder", path=path)
    if not path.is_dir():
        return [path]
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(("_", "."))]
    if format_ is None:
        files = [file for file in files if _format_by_suffix(file)]
    if not files:
        raise InputError(f"{path}: no table in this folder; its files must end in {_known_suffixes()}", path=path)
    return files


def format_of(path: Path) -> Format:
    """Return the format that the suffix of ``path`` says, ``.gz``, ``.zst`` or ``.bz2`` set aside.

    Raises:
        InputError: the suffix says nothing.
    """
    found = _format_by_suffix(path)
    if found is None:
        raise InputError(
            f"{path}: unknown format; name it with --format, or use a suffix of {_known_suffixes()}", path=path
        )
    return found


def read_chunks(path: Path, columns: Sequence[str], format_: Format | None = None) -> Iterator[Chunk]:
    """Yield the rows of one file, at most 2²⁰ at a time, so that memory does not grow with the file.

    Args:
        path: A file; text formats may be compressed (``.gz``, ``.zst``, ``.bz2``).
        columns: At least one name. Matrix Market takes names of `MATRIX_COLUMNS` only.
        format_: None takes `format_of`.

    Raises:
        InputError: the file cannot be read, or a column is missing, twice there or without a name.
    """
    format_ = format_ or format_of(path)
    try:
        yield from _parquet_chunks(path, columns) if format_ is Format.PARQUET else _text_chunks(path, columns, format_)
    except (OSError, EOFError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as {format_.value}: {error}", path=path) from error


def _format_by_suffix(path: Path) -> Format | None:
    bare = path.with_suffix("") if path.suffix.lower() in _CODECS else path
    return _SUFFIXES.get(bare.suffix.lower())


def _known_suffixes() -> str:
    return ", ".join(_SUFFIXES)


def _parquet_chunks(path: Path, columns: Sequence[str]) -> Iterator[Chunk]:
    metadata = pq.read_metadata(path)
    schema = metadata.schema.to_arrow_schema()
    check_columns(path, columns, schema.names)
    # Text stays dictionary-encoded, as Parquet stores it: ids are looked at once per chunk, not once per row.
    flat = [name for name in columns if not pa.types.is_nested(schema.field(name).type)]
    row_count, size_bytes, done = metadata.num_rows, path.stat().st_size, 0
    # Read ahead, Arrow would keep all that it has read until the file is closed.
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=flat, pre_buffer=False, buffer_size=1 << 20) as file:
        for batch in file.iter_batches(batch_size=_PARQUET_CHUNK_ROWS, columns=list(columns), use_threads=False):
            rows = np.arange(done + 1, done + 1 + batch.num_rows)
            done += batch.num_rows
            yield Chunk(
                columns=tuple(batch.column(name) for name in columns),
                rows=rows,
                broken=(),
                bytes_read=size_bytes * done // row_count,
            )


def _text_chunks(path: Path, columns: Sequence[str], format_: Format) -> Iterator[Chunk]:
    codec = _CODECS.get(path.suffix.lower())
    # Bytes that are not UTF-8 become lone surrogates: in an id they are reported, elsewhere they do no harm.
    with path.open("rb") as raw, closing(pa.CompressedInputStream(raw, codec) if codec else raw) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=_newline(format_))
        records = _PARSERS[format_](path, text, columns)
        first_row = 1
        while batch := list(islice(records, _TEXT_CHUNK_ROWS)):
            whole = [fields for fields in batch if not isinstance(fields, str)]
            broken = [(row, reason) for row, reason in enumerate(batch, first_row) if isinstance(reason, str)]
            rows = np.delete(np.arange(len(batch)), [row - first_row for row, _ in broken]) + first_row
            first_row += len(batch)
            yield Chunk(
                columns=tuple(zip(*whole, strict=True)) if whole else tuple(() for _ in columns),
                rows=rows,
                broken=broken,
                bytes_read=raw.tell(),
            )


def _newline(format_: Format) -> str:
    # csv splits quoted fields over lines itself; elsewhere only "\n" ends a line.
    return "" if format_ in (Format.CSV, Format.TSV) else "\n"
