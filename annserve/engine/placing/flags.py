"""Which rows of many pass, told from bitmaps: by arrays of one byte a row, where the same bitmap is asked often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache
from pyroaring import BitMap

from annserve.domain.arrays import Rows
from annserve.domain.filter import Filter

_KEPT = 16

Flags: TypeAlias = npt.NDArray[np.bool_]


@dataclass(slots=True, eq=False)
class _Known:
    version: int
    flags: Flags | None = None
    """By row; None until a version is asked for again: what changes faster than it is asked for stays a bitmap."""


class FlagReader:
    """Reads flags of rows. One event loop uses it."""

    def __init__(self) -> None:
        self._known: LRUCache[Filter, _Known] = LRUCache(_KEPT)

    def of(self, filter_: Filter, rows: Rows, passing: BitMap, version: int) -> Flags:
        """Return which of ``rows`` are in ``passing``, those of ``filter_``, whose content ``version`` names."""
        known = self._known.get(filter_)
        if known is None or known.version != version:
            self._known[filter_] = _Known(version)
            return flags_of(rows, passing)
        if known.flags is None:
            known.flags = np.zeros((passing.max() if passing else 0) + 1, np.bool_)
            known.flags[np.frombuffer(passing.to_array(), np.uint32)] = True
        try:
            return known.flags.take(rows)
        except IndexError:  # Rows of items that came since may be larger than any that passes.
            return flags_of(rows, passing)


def flags_of(rows: Rows, passing: BitMap) -> Flags:
    """Return which of ``rows`` are in ``passing``, asking for each."""
    return np.array([row in passing for row in rows.tolist()], np.bool_)
