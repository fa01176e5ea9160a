"""What a column's values mean: ids, weights, times. A bad value is marked, not raised for.

``where`` names the column in errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from annserve.domain.errors import InputError
from annserve.training.readers import Column

NO_TIME = np.iinfo(np.int64).min
"""Stands for a time that is absent or cannot be understood."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_MS = timedelta(milliseconds=1)
_YEAR_1_MS = -62_135_596_800_000
_YEAR_1990_MS = 631_152_000_000
_YEAR_2100_MS = 4_102_444_800_000
_YEAR_10000_MS = 253_402_300_800_000
_SHOWN_MAX = 40

# Parquet text whose writer declared no encoding arrives as binary.
_TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())


class TimeUnit(str, Enum):
    """What a time given as a number counts, since 1970-01-01 UTC."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"


_MS_PER_UNIT = {TimeUnit.SECONDS: 1000.0, TimeUnit.MILLISECONDS: 1.0, TimeUnit.MICROSECONDS: 0.001}


def id_values(column: Column, where: str) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return for each row the position of its id in a list of different ids, -1 where it is absent.

    Text that is not UTF-8 comes back with lone surrogates, which no valid id has.

    Raises:
        InputError: the column is neither text nor whole numbers.
    """
    if not isinstance(column, pa.Array):
        positions: dict[str | None, int] = {None: -1}
        codes = np.fromiter((positions.setdefault(text, len(positions) - 1) for text in column), np.int64, len(column))
        return codes, [text for text in positions if text is not None]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (kind in _TEXT_TYPES or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise InputError(f"{where}: must hold text or whole numbers, not {kind}")
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    # A chunk may use few entries of a large dictionary. The code -1 reads the last position, which stays -1.
    used = np.flatnonzero(np.bincount(codes + 1, minlength=len(encoded.dictionary) + 1)[1:])
    position_of = np.full(len(encoded.dictionary) + 1, -1)
    position_of[used] = np.arange(len(used))
    return position_of[codes], _texts(encoded.dictionary.take(pa.array(used)))


def _texts(values: Any) -> list[str]:
    """Return Arrow text or whole numbers as strings, nulls as empty ones."""
    if values.type not in _TEXT_TYPES:
        return ["" if value is None else str(value) for value in values.to_pylist()]
    # As bytes, because Arrow does not promise that its text is UTF-8.
    texts = values.cast(pa.large_binary()).to_pylist()
    return ["" if value is None else value.decode(errors="surrogateescape") for value in texts]


def number_values(column: Column, where: str) -> npt.NDArray[np.float64]:
    """Return the numbers of a column, shape ``(n,)``; NaN where there is none.

    Raises:
        InputError: the column holds something other than numbers or text.
    """
    if not isinstance(column, pa.Array):
        return _parsed_numbers(column)
    column = _plain(column)
    if column.type in _TEXT_TYPES:
        return _parsed_numbers(_texts(column))
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        raise InputError(f"{where}: must hold numbers, not {column.type}")
    values: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy()
    return values


def _parsed_numbers(texts: Sequence[str | None]) -> npt.NDArray[np.float64]:
    return np.fromiter(map(_parsed_number, texts), np.float64, len(texts))


def _parsed_number(text: str | None) -> float:
    try:
        return math.nan if text is None else float(text)
    except ValueError:
        return math.nan


def time_values(column: Column, where: str, unit: TimeUnit | None) -> npt.NDArray[np.int64]:
    """Return times as milliseconds since 1970-01-01 UTC, shape ``(n,)``; `NO_TIME` where there is none.

    Args:
        column: Arrow timestamps or dates (without a zone they are UTC); with ``unit`` numbers; without it ISO 8601
            text (without an offset it is UTC).
        where: The column, for errors.
        unit: What numbers count. A guess by magnitude would be wrong in silence, so there is none.

    Raises:
        InputError: the column holds numbers and no unit is given, or something that is no time.
    """
    if isinstance(column, pa.Array):
        column = _plain(column)
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            return _arrow_times(column)
        if column.type not in _TEXT_TYPES:
            return _epoch_times(number_values(column, where), _required(unit, where))
        column = _texts(column)
    if unit is not None:
        return _epoch_times(_parsed_numbers(column), unit)
    return _iso_times(column)


def _required(unit: TimeUnit | None, where: str) -> TimeUnit:
    if unit is None:
        raise InputError(
            f"{where}: holds numbers; say with time_unit (--time-unit) whether they count s, ms or us since 1970"
        )
    return unit


def _epoch_times(numbers: npt.NDArray[np.float64], unit: TimeUnit) -> npt.NDArray[np.int64]:
    with np.errstate(over="ignore"):
        milliseconds = np.rint(numbers * _MS_PER_UNIT[unit])
    known = (milliseconds >= _YEAR_1_MS) & (milliseconds < _YEAR_10000_MS)
    return np.where(known, milliseconds, 0.0).astype(np.int64) + np.where(known, 0, NO_TIME)


def _arrow_times(moments: Any) -> npt.NDArray[np.int64]:
    times = moments.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).fill_null(NO_TIME).to_numpy()
    return np.where((times >= _YEAR_1_MS) & (times < _YEAR_10000_MS), times, NO_TIME)


def _iso_times(texts: Sequence[str | None]) -> npt.NDArray[np.int64]:
    try:
        # Arrow's parser is fast, but takes a column with offsets or one without, and gives up at the first bad value.
        moments = pa.array(texts, pa.string()).cast(pa.timestamp("us"))
    except ValueError:
        return np.fromiter(map(_iso_time, texts), np.int64, len(texts))
    return _arrow_times(moments)


def _iso_time(text: str | None) -> int:
    try:
        # "20240101" is a date to ISO 8601, but in this column more likely a number without a unit.
        moment = datetime.fromisoformat("" if text is None or text.isdecimal() else text)
    except ValueError:
        return NO_TIME
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _ONE_MS


def time_problem(column: Column, position: int, unit: TimeUnit | None) -> str:
    """Return what must hold of a time that `time_values` did not understand, and what is there instead."""
    if isinstance(column, pa.Array) and pa.types.is_temporal(column.type):
        wanted = "must be of the years 1 to 9999"
    elif unit is None:
        wanted = "must be ISO 8601, or a number with time_unit (--time-unit)"
    else:
        wanted = f"must be {unit.name.lower()} since 1970, of the years 1 to 9999"
    meant = _likely_unit(_parsed_number(_text_at(column, position)))
    return f"{wanted}, got {value_shown(column, position)}" + (f", which may be {meant.value}" if meant else "")


def unit_meant(time_ms: int, unit: TimeUnit) -> TimeUnit | None:
    """Return what a number probably counts that gave ``time_ms`` as ``unit``; None where no unit makes it likely."""
    return _likely_unit(time_ms / _MS_PER_UNIT[unit])


def _likely_unit(number: float) -> TimeUnit | None:
    """Return as what ``number`` is a moment of 1990 to 2100: as one at most, so far apart are the units."""
    return next((unit for unit, ms in _MS_PER_UNIT.items() if _YEAR_1990_MS <= number * ms < _YEAR_2100_MS), None)


def moment_text(time_ms: int) -> str:
    """Return a time as people read it, UTC to the minute."""
    return f"{_EPOCH + max(_YEAR_1_MS, time_ms) * _ONE_MS:%Y-%m-%d %H:%M}"


def value_shown(column: Column, position: int) -> str:
    """Return a value as messages show it, cut to some length. Not for ids of users, who may be known by them."""
    text = _text_at(column, position)
    if text is None:
        return "nothing"
    return repr(text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…")


def _text_at(column: Column, position: int) -> str | None:
    if not isinstance(column, pa.Array):
        text: str | None = column[position]
        return text
    value = _plain(column.slice(position, 1))
    if value.null_count:
        return None
    try:
        return _texts(value if value.type in _TEXT_TYPES else value.cast(pa.string()))[0]
    except pa.ArrowException:  # A time whose zone is not known here.
        return str(value.cast(pa.int64())[0])


def _plain(column: Any) -> Any:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
