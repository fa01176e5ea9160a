"""The text formats, a row at a time: fields as they are written, or the reason why a row has none."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from types import NoneType
from typing import Any, TypeAlias

from annserve.domain.errors import InputError

Fields: TypeAlias = Sequence[str | None]
"""Those of the columns asked for, in that order; None where a row has no such field."""

Record: TypeAlias = Fields | str
"""The fields of a row, or the reason why it has none."""

_SEPARATORS = ",;\t|"
MATRIX_COLUMNS = ("row", "column", "value")
"""The names under which a Matrix Market file gives its columns: two numbers from 1, and a value (1 in a pattern)."""
_SCALARS = frozenset({str, NoneType})


def check_columns(path: Path, wanted: Sequence[str], present: Iterable[str]) -> None:
    """Raise `InputError`, with the names ``present``, unless every name of ``wanted`` is there exactly once.

    Its metadata say which `column` it is about: callers know where its name comes from.
    """
    names = list(present)
    if not names:
        raise InputError(f"{path}: has no columns; it is empty, or not of this format", path=path)
    for name in wanted:
        if names.count(name) != 1:
            problem = "is there more than once" if name in names else f"is missing{_near(name, names)}"
            raise InputError(
                f"{path}: column {name!r} {problem}; it has {', '.join(map(repr, names))}", path=path, column=name
            )


def _near(wanted: str, present: Sequence[str]) -> str:
    folded = {name.casefold(): name for name in present}
    near = get_close_matches(wanted.casefold(), folded, 1)
    return f" (is it {folded[near[0]]!r}?)" if near else ""


def csv_records(path: Path, text: Iterable[str], columns: Sequence[str], delimiter: str = ",") -> Iterator[Record]:
    """Yield the rows of a table with a header, quoted as in RFC 4180; blank lines are skipped."""
    reader = csv.reader(text, delimiter=delimiter)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise InputError(f"{path}: has no header of column names: {error}", path=path) from error
    if len(header) == 1 and header[0] not in columns:
        _check_separator(path, header[0], delimiter)
    check_columns(path, columns, header)
    pick = _picker([header.index(name) for name in columns])
    while True:
        try:
            for fields in reader:
                if len(fields) == len(header):
                    yield pick(fields)
                elif fields:
                    yield "wrong number of fields"
        except csv.Error:
            yield "broken quoting"
        else:
            return


def _check_separator(path: Path, header: str, delimiter: str) -> None:
    """Refuse a header whose only name is several with another separator between them."""
    found = next((other for other in _SEPARATORS if other != delimiter and other in header), None)
    if found is not None:
        name = {",": "csv", "\t": "tsv"}.get(found)
        remedy = f"read it as {name} (--format {name}, or that suffix)" if name else f"write it with {delimiter!r}"
        raise InputError(
            f"{path}: the separator must be {delimiter!r}, but seems to be {found!r}: "
            f"the first line is {header[:80]!r}; {remedy}",
            path=path,
        )


def tsv_records(path: Path, text: Iterable[str], columns: Sequence[str]) -> Iterator[Record]:
    """Yield the rows of a table with a header, as `csv_records` but with tabs."""
    return csv_records(path, text, columns, "\t")


def _picker(positions: Sequence[int]) -> Callable[[Sequence[str]], Fields]:
    if len(positions) > 1:
        return itemgetter(*positions)
    return lambda fields: (fields[positions[0]],)


def json_records(path: Path, text: Iterable[str], columns: Sequence[str]) -> Iterator[Record]:
    """Yield the objects of JSON Lines (https://jsonlines.org); a column must be in one of the first thousand."""
    # Numbers stay as they are written: no rounding of ids, no digit too many.
    decode = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).decode
    lines = iter(text)
    head = list(islice(lines, 1000))
    present: dict[str, None] = {}
    for line in head:
        fields = _json_object(line, decode)
        present |= dict.fromkeys(fields or ())
    check_columns(path, columns, present)
    for line in chain(head, lines):
        fields = _json_object(line, decode)
        if fields is None:
            if not line.isspace():
                yield "not a JSON object"
            continue
        record = tuple(map(fields.get, columns))
        yield record if _SCALARS.issuperset(map(type, record)) else "neither text nor a number"


def _json_object(line: str, decode: Callable[[str], Any]) -> dict[str, Any] | None:
    try:
        fields = decode(line)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def matrix_records(path: Path, text: Iterable[str], columns: Sequence[str]) -> Iterator[Record]:
    """Yield the entries of a matrix that lists them all (https://math.nist.gov/MatrixMarket/formats.html)."""
    check_columns(path, columns, MATRIX_COLUMNS)
    pick = _picker([MATRIX_COLUMNS.index(name) for name in columns])
    lines = (line for line in text if not line.isspace())
    is_pattern = _is_pattern(path, next(lines, ""))
    body = (line for line in lines if not line.startswith("%"))
    try:
        row_count, column_count, entry_count = map(int, next(body, "").split())
    except ValueError:
        raise InputError(f"{path}: no line of three sizes after the Matrix Market header", path=path) from None
    seen = 0
    for line in body:
        seen += 1
        fields = [*line.split(), "1"] if is_pattern else line.split()
        if len(fields) != 3:
            yield "wrong number of fields"
        elif not (_within(fields[0], row_count) and _within(fields[1], column_count)):
            yield "outside the matrix"
        else:
            yield pick(fields)
    if seen != entry_count:
        raise InputError(f"{path}: says it has {entry_count} entries, but has {seen}", path=path)


def _is_pattern(path: Path, header: str) -> bool:
    match header.lower().split():
        case ["%%matrixmarket", "matrix", "coordinate", "real" | "integer" | "pattern" as kind, "general"]:
            return kind == "pattern"
        case _:
            raise InputError(
                f"{path}: must start with '%%MatrixMarket matrix coordinate real|integer|pattern general', "
                f"but starts with {header.strip()[:80]!r}",
                path=path,
            )


def _within(text: str, count: int) -> bool:
    # Only digits: int() would also take " 1", "1_0" and "+1", which are other ids.
    return text.isdecimal() and text.isascii() and text[0] != "0" and len(text) < 20 and int(text) <= count
