"""The values of a column, by type: each kind answers the tests of a leaf with a mask over all of them.

Numbers cost 8 bytes a value (16 in a column with integers that no float is equal to), times 8, strings 4 and each
different text once, booleans 1.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from annserve.catalog.evaluate import Comparable, as_float, predicate_of
from annserve.domain.filter import Equals, FieldType, In, Range, Scalar

Mask: TypeAlias = npt.NDArray[np.bool_]
Test: TypeAlias = Equals | In | Range
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


class Values(Protocol):
    """Values of one type, in a column's order."""

    @property
    def size_bytes(self) -> int:
        """The size of the arrays."""
        ...

    def mask(self, leaf: Test) -> Mask:
        """Return for each value whether it passes."""
        ...

    def take(self, positions: npt.NDArray[np.intp]) -> Values:
        """Return the values at ``positions``."""
        ...

    def scalars(self) -> Sequence[Scalar | None]:
        """Return the values as callers get them, None for one they cannot have."""
        ...


class Collector(Protocol):
    """Takes values one by one."""

    def add(self, value: Comparable) -> None:
        """Add the next value."""
        ...

    def values(self) -> Values:
        """Return what was added; nothing can be added afterwards."""
        ...


def collector(type_: FieldType) -> Collector:
    """Return what collects values of ``type_``."""
    match type_:
        case FieldType.STRING:
            return _StringCollector()
        case FieldType.NUMBER:
            return _NumberCollector()
        case FieldType.BOOLEAN:
            return _PlainCollector(array("b"), np.bool_)
        case FieldType.TIME:
            return _PlainCollector(array("q"), np.int64)


@dataclass(frozen=True, slots=True)
class _PlainValues:
    """Times and booleans, as NumPy compares them."""

    array: npt.NDArray[Any]

    @property
    def size_bytes(self) -> int:
        return self.array.nbytes

    def mask(self, leaf: Test) -> Mask:
        return _compared(self.array, leaf)

    def take(self, positions: npt.NDArray[np.intp]) -> _PlainValues:
        return _PlainValues(self.array[positions])

    def scalars(self) -> Sequence[Scalar | None]:
        scalars: list[Scalar | None] = self.array.tolist()
        return scalars


@dataclass(frozen=True, slots=True)
class _StringValues:
    """Strings as positions in the sorted list of those there are."""

    codes: npt.NDArray[np.int32]
    texts: Sequence[str]

    @property
    def size_bytes(self) -> int:
        return self.codes.nbytes

    def mask(self, leaf: Test) -> Mask:
        match leaf:
            case Equals(_, value):
                return self._among((value,))
            case In(_, values):
                return self._among(values)
            case Range(_, minimum, maximum, minimum_excluded, maximum_excluded):
                cut_low, cut_high = (
                    bisect_right if minimum_excluded else bisect_left,
                    bisect_left if maximum_excluded else bisect_right,
                )
                start = 0 if minimum is None else cut_low(self.texts, str(minimum))
                end = len(self.texts) if maximum is None else cut_high(self.texts, str(maximum))
                return (self.codes >= start) & (self.codes < end)

    def take(self, positions: npt.NDArray[np.intp]) -> _StringValues:
        return _StringValues(self.codes[positions], self.texts)

    def scalars(self) -> Sequence[Scalar | None]:
        return [self.texts[code] for code in self.codes.tolist()]

    def _among(self, values: Iterable[Scalar]) -> Mask:
        is_wanted = np.zeros(len(self.texts), dtype=bool)
        for value in values:
            code = bisect_left(self.texts, str(value))
            if code < len(self.texts) and self.texts[code] == value:
                is_wanted[code] = True
        return is_wanted[self.codes]


@dataclass(frozen=True, slots=True)
class _NumberValues:
    """Numbers as floats, and NaN, which is no value of a column, in the place of one that no float equals."""

    floats: npt.NDArray[np.float64]
    wide: npt.NDArray[np.int64] | None
    """The integers in those places; None when there are none."""
    odd: Mapping[int, Comparable]
    """By position the decimals in those places, and the integers of more than 64 bits."""

    @property
    def size_bytes(self) -> int:
        return self.floats.nbytes + (0 if self.wide is None else self.wide.nbytes)

    def mask(self, leaf: Test) -> Mask:
        mask = _compared(self.floats, leaf)
        if self.wide is not None:
            mask |= np.isnan(self.floats) & _compared(self.wide, _whole(leaf))
        if self.odd:
            passes = predicate_of(leaf)
            for position, number in self.odd.items():
                mask[position] = passes(number)
        return mask

    def take(self, positions: npt.NDArray[np.intp]) -> _NumberValues:
        odd = {new: self.odd[old] for new, old in enumerate(positions.tolist()) if old in self.odd} if self.odd else {}
        return _NumberValues(self.floats[positions], None if self.wide is None else self.wide[positions], odd)

    def scalars(self) -> Sequence[Scalar | None]:
        floats = self.floats if self.wide is None else np.where(np.isnan(self.floats), self.wide, self.floats)
        numbers: list[float] = floats.tolist()
        for position, number in self.odd.items():
            numbers[position] = as_float(number)
        return [number if math.isfinite(number) else None for number in numbers]


@dataclass(slots=True)
class _PlainCollector:
    collected: array[int]
    dtype: npt.DTypeLike

    def add(self, value: Comparable) -> None:
        self.collected.append(value)

    def values(self) -> Values:
        return _PlainValues(np.frombuffer(self.collected, dtype=self.dtype))


class _StringCollector:
    def __init__(self) -> None:
        self._codes = array("i")
        self._code_of: dict[str, int] = {}

    def add(self, value: Comparable) -> None:
        self._codes.append(self._code_of.setdefault(value, len(self._code_of)))

    def values(self) -> Values:
        texts = sorted(self._code_of)
        sorted_code_of = np.empty(len(texts), dtype=np.int32)
        sorted_code_of[[self._code_of[text] for text in texts]] = np.arange(len(texts), dtype=np.int32)
        return _StringValues(sorted_code_of[np.frombuffer(self._codes, dtype=np.int32)], texts)


class _NumberCollector:
    def __init__(self) -> None:
        self._floats = array("d")
        self._wide_positions = array("i")
        self._wide = array("q")
        self._odd: dict[int, Comparable] = {}

    def add(self, value: Comparable) -> None:
        number = as_float(value)
        if number != value:
            self._add_inexact(value)
            number = math.nan
        self._floats.append(number)

    def _add_inexact(self, value: Comparable) -> None:
        if isinstance(value, int) and _INT64_MIN <= value <= _INT64_MAX:
            self._wide_positions.append(len(self._floats))
            self._wide.append(value)
        else:
            self._odd[len(self._floats)] = value

    def values(self) -> Values:
        wide = np.zeros(len(self._floats), dtype=np.int64) if self._wide else None
        if wide is not None:
            wide[np.frombuffer(self._wide_positions, dtype=np.int32)] = self._wide
        return _NumberValues(np.frombuffer(self._floats, dtype=np.float64), wide, self._odd)


def _compared(values: npt.NDArray[Any], leaf: Test) -> Mask:
    mask: Mask
    match leaf:
        case Equals(_, value):
            mask = values == value
        case In(_, among):
            wanted = np.unique(np.array(among, dtype=values.dtype))
            nearest = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
            mask = wanted[nearest] == values if len(wanted) else np.zeros(len(values), dtype=bool)
        case Range(_, minimum, maximum, minimum_excluded, maximum_excluded):
            mask = np.ones(len(values), dtype=bool)
            if minimum is not None:
                mask &= values > minimum if minimum_excluded else values >= minimum
            if maximum is not None:
                mask &= values < maximum if maximum_excluded else values <= maximum
    return mask


def _whole(leaf: Test) -> Test:
    """Return the test of integers that equals ``leaf``: NumPy would round them to floats to compare the two."""
    match leaf:
        case Equals(field, value):
            return In(field, _whole_numbers((value,)))
        case In(field, values):
            return In(field, _whole_numbers(values))
        case Range(field, minimum, maximum, minimum_excluded, maximum_excluded):
            return Range(field, _lowest(minimum, minimum_excluded), _highest(maximum, maximum_excluded))


def _whole_numbers(values: Iterable[Scalar]) -> tuple[int, ...]:
    return tuple(int(value) for value in values if int(value) == value and _INT64_MIN <= value <= _INT64_MAX)


def _lowest(minimum: Scalar | None, is_excluded: bool) -> int | None:
    if minimum is None:
        return None
    return math.floor(float(minimum)) + 1 if is_excluded else math.ceil(float(minimum))


def _highest(maximum: Scalar | None, is_excluded: bool) -> int | None:
    if maximum is None:
        return None
    return math.ceil(float(maximum)) - 1 if is_excluded else math.floor(float(maximum))
