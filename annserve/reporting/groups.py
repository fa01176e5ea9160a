"""Sums per group of users: all that intervals need, in memory that does not grow with users or impressions."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from hashlib import blake2b
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from annserve.reporting.estimates import Sums

GROUPS = 1_024
"""Groups that users are put into: a standard error is then itself known to ``1 / sqrt(2 * 1023)``, 2 %."""
_HASHES = 1 << 32

Key = TypeVar("Key", bound=Hashable)


def hash_of(user_id: str) -> int:
    """Return 32 bits that depend on the id alone; the lower ten are the user's group."""
    return int.from_bytes(blake2b(user_id.encode(), digest_size=4, person=b"report").digest())


class GroupedSums(Generic[Key]):
    """For each key, the sums of some columns in each group: ``8 * GROUPS * columns`` bytes a key."""

    def __init__(self, columns: int) -> None:
        self._rows: dict[Key, int] = {}
        self._sums = np.zeros((16, GROUPS, columns))

    def add(self, keys: Sequence[Key], groups: npt.NDArray[np.int64], values: Sums) -> None:
        """Add ``values``, ``(n, columns)``, each to its key and group, ``(n,)``."""
        rows = np.fromiter((self._rows.setdefault(key, len(self._rows)) for key in keys), np.int64, len(keys))
        while len(self._rows) > len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
        np.add.at(self._sums, (rows, groups), values)

    def of(self, key: Key) -> Sums:
        """Return the sums of a key that there is, ``(GROUPS, columns)``."""
        sums: Sums = self._sums[self._rows[key]]
        return sums

    def __iter__(self) -> Iterator[Key]:
        return iter(self._rows)


class Distinct:
    """How many users there were, from their hashes: 2 to 4 bytes each."""

    def __init__(self, hashes: BitMap | None = None) -> None:
        self._hashes = BitMap() if hashes is None else hashes

    def add(self, hashes: npt.NDArray[np.int64]) -> None:
        """Count users by their `hash_of`."""
        self._hashes.update(hashes.astype(np.uint32))

    def union(self, other: Distinct) -> Distinct:
        """Return the users of both."""
        return Distinct(self._hashes | other._hashes)

    def __len__(self) -> int:
        # Linear counting (Whang et al., 1990) makes up for equal hashes: the error is some 10 users in a million.
        return round(-_HASHES * math.log1p(-len(self._hashes) / _HASHES))
