"""Items' documents in files: Parquet, CSV, TSV and JSON Lines."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from annserve.domain.catalog import Document, Schema
from annserve.domain.errors import InputError, TooManyBadRowsError
from annserve.domain.filter import Field, FieldType
from annserve.domain.ids import id_problem

MAX_BAD_SHARE = 0.01
"""The share of rows without a usable id, or that are none, above which a file is refused."""

TO_DECLARE = "declare them in a YAML file, --catalog-config (docs/catalogue.md has an example)"
"""What to do about fields whose types nothing says."""

ITEM_ID = "item_id"
"""The column that holds the item's id, unless another is named."""

_ROWS_AT_ONCE = 8_192
_DATE = "$date"

Raw: TypeAlias = Mapping[str, Any] | str
"""A row as it is written, or the reason why it is none."""

_log = logging.getLogger(__name__)


def read_documents(
    path: Path, schema: Schema, *, id_column: str = ITEM_ID, max_bad_share: float = MAX_BAD_SHARE
) -> Iterator[tuple[str, Document]]:
    """Yield the item id and the document of each row of ``path``, reading as they are taken.

    A null of Parquet is a missing field, one of JSON is a null. CSV knows text alone: declared fields become what they
    are declared as, an empty one is missing. Times of JSON are ISO 8601 text in fields declared so, or
    ``{"$date": text}``; without an offset they are UTC.

    Args:
        path: The file; its ending tells the format.
        schema: The declared fields.
        id_column: The column that holds the item's id, a string or an integer; it is no part of the document.
        max_bad_share: Rows without a usable id are left out and logged; more than this share of them is refused.

    Raises:
        InputError: the file cannot be read, is of no known format, or has no such column.
        TooManyBadRowsError: too many rows are of no use.
    """
    suffix = path.suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None:
        raise InputError(f"{path}: the ending must be one of {', '.join(_READERS)}", path=path)
    bad: Counter[str] = Counter()
    count = 0
    try:
        for raw in reader(path, schema, id_column):
            count += 1
            if isinstance(raw, str):
                bad[raw] += 1
                continue
            if id_column not in raw:
                bad[f"{id_column} is missing"] += 1
                continue
            item_id = _item_id(raw[id_column])
            if problem := id_problem(item_id):
                bad[f"{id_column} {problem}"] += 1
                continue
            yield item_id, {name: value for name, value in raw.items() if name != id_column}
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}", path=path) from error
    if not bad:
        return
    summary = "; ".join(f"{reason}: {times}" for reason, times in bad.most_common(5))
    if bad.total() > max_bad_share * count:
        hint = _hint(id_column) if f"{id_column} is missing" in bad else ""
        raise TooManyBadRowsError(f"{path}: {bad.total()} of {count} rows are of no use: {summary}{hint}", path=path)
    _log.warning("%s: %d of %d rows left out: %s", path, bad.total(), count, summary)


def look_at(path: Path, schema: Schema) -> None:
    """Raise what `read_documents` does, should the first rows tell; where few of them are of use, more are read."""
    for _ in islice(read_documents(path, schema), _ROWS_AT_ONCE):
        pass


def inferred_schema(path: Path, id_column: str = ITEM_ID) -> Schema:
    """Return the fields that a Parquet file declares by its column types; columns of other types are left out.

    Raises:
        InputError: the file is no Parquet, whose columns alone have types, or cannot be read.
    """
    if path.suffix.lower() != ".parquet":
        raise InputError(f"{path} does not say the types of its fields: {TO_DECLARE}", path=path)
    try:
        columns = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}", path=path) from error
    return Schema(
        Field(name=column.name, type=type_, many=_is_list(column.type), path=column.name)
        for column in columns
        if column.name != id_column
        and column.name.isidentifier()
        and (type_ := _field_type(column.type.value_type if _is_list(column.type) else column.type)) is not None
    )


def write_documents(path: Path, documents: Iterable[tuple[str, Document]], id_column: str = ITEM_ID) -> None:
    """Write JSON Lines that `read_documents` reads back.

    Raises:
        InputError: a document holds what JSON cannot.
    """
    with path.open("w", encoding="utf-8") as file:
        for item_id, document in documents:
            try:
                file.write(json.dumps({id_column: item_id, **document}, default=_as_json) + "\n")
            except (TypeError, ValueError) as error:
                raise InputError(f"item {item_id!r} cannot be written as JSON: {error}", item_id=item_id) from error


def _parquet(path: Path, _schema: Schema, id_column: str) -> Iterator[Raw]:
    with pq.ParquetFile(path) as file:
        _check_id_column(path, id_column, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
            # Python has no times finer than microseconds; unsafe is what it takes to cut them off.
            for row in pa.Table.from_batches([batch]).cast(_python_schema(batch.schema), safe=False).to_pylist():
                yield {name: _as_value(value) for name, value in row.items() if value is not None}


def _csv(path: Path, schema: Schema, id_column: str, delimiter: str = ",") -> Iterator[Raw]:
    types = {field.path: field.type for field in schema.fields.values()}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        header = next(reader, [])
        _check_id_column(path, id_column, header)
        for fields in reader:
            if len(fields) != len(header):
                if fields:
                    yield "wrong number of fields"
                continue
            yield {
                name: text if name == id_column else _from_text(text, types.get(name))
                for name, text in zip(header, fields, strict=True)
                if text
            }


def _tsv(path: Path, schema: Schema, id_column: str) -> Iterator[Raw]:
    return _csv(path, schema, id_column, "\t")


def _json_lines(path: Path, schema: Schema, _id_column: str) -> Iterator[Raw]:
    times = [field.path.split(".") for field in schema.fields.values() if field.type is FieldType.TIME]
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                document = json.loads(line, object_hook=_from_json)
            except (ValueError, RecursionError):
                yield "no JSON"
                continue
            if not isinstance(document, dict):
                yield "no JSON object"
                continue
            for names in times:
                _read_times(document, names)
            yield document


_READERS: Mapping[str, Callable[[Path, Schema, str], Iterator[Raw]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}


def _check_id_column(path: Path, id_column: str, names: Iterable[str]) -> None:
    present = list(names)
    if id_column not in present:
        raise InputError(
            f"{path}: column {id_column!r} is missing; it has {', '.join(present)}{_hint(id_column)}", path=path
        )


def _hint(id_column: str) -> str:
    """Return how to do without a column of that name; nothing for one that was named."""
    if id_column != ITEM_ID:
        return ""
    return (
        "; where the ids are in another column, `annserve catalog load FILE --id-column COLUMN --catalog NEW.jsonl "
        "--catalog-config YAML` writes a catalogue that can be served"
    )


def _item_id(value: object) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _from_text(text: str, type_: FieldType | None) -> object:
    """Return what ``text`` stands for, or itself where it does not stand for such a value."""
    try:
        match type_:
            case FieldType.NUMBER:
                return int(text) if text.lstrip("+-").isdecimal() else float(text)
            case FieldType.BOOLEAN:
                return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), text)
            case FieldType.TIME:
                return _time(text)
            case _:
                return text
    except ValueError:
        return text


def _read_times(value: object, names: list[str]) -> None:
    """Turn the text that ``names`` lead to into times, in place."""
    if isinstance(value, list):
        for element in value:
            _read_times(element, names)
    if not isinstance(value, dict) or names[0] not in value:
        return
    if len(names) > 1:
        _read_times(value[names[0]], names[1:])
        return
    found = value[names[0]]
    value[names[0]] = [_from_text_time(one) for one in found] if isinstance(found, list) else _from_text_time(found)


def _from_text_time(value: object) -> object:
    return _from_text(value, FieldType.TIME) if isinstance(value, str) else value


def _from_json(value: dict[str, Any]) -> object:
    if value.keys() == {_DATE} and isinstance(value[_DATE], str):
        return _from_text(value[_DATE], FieldType.TIME)
    return value


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _as_json(value: object) -> object:
    if isinstance(value, datetime):
        return {_DATE: (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _as_value(value: object) -> object:
    """Return a value of Parquet as the stores hold it: a date as its midnight, a null in a list as it is."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, list):
        return [_as_value(one) for one in value]
    if isinstance(value, dict):
        return {name: _as_value(one) for name, one in value.items() if one is not None}
    return value


def _python_schema(schema: pa.Schema) -> pa.Schema:
    """Return ``schema`` with types that Python, MongoDB and JSON all have: floats for decimals, times of ms."""
    return pa.schema([(column.name, _python_type(column.type)) for column in schema])


def _python_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(type_):
        return pa.timestamp("ms", tz="UTC")
    if pa.types.is_decimal(type_):
        return pa.float64()
    return pa.list_(_python_type(type_.value_type)) if _is_list(type_) else type_


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_))


def _field_type(type_: pa.DataType) -> FieldType | None:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return FieldType.STRING
    if pa.types.is_boolean(type_):
        return FieldType.BOOLEAN
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return FieldType.NUMBER
    return FieldType.TIME if pa.types.is_timestamp(type_) or pa.types.is_date(type_) else None
