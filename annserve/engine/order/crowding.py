"""Caps: whether one value of a field would become too frequent around a place."""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from collections.abc import Sequence

from annserve.domain.filter import Scalar
from annserve.placements.recipe import Cap

NEVER = sys.maxsize
"""No place."""


class Crowding:
    """Follows one cap while places are filled from the first on; pins may be placed ahead. Places count from 0.

    Nothing is done for a candidate that nobody asks about: asking costs a look-up or two for each of its values.
    """

    def __init__(self, cap: Cap, values: Sequence[tuple[Scalar, ...]], positions: Sequence[int]) -> None:
        """Begin with nothing placed.

        Args:
            cap: Allows at least 1.
            values: By position; a candidate without any is never denied any place.
            positions: Where each candidate's values are.
        """
        self.name = cap.name
        self._at_most, self._window = cap.at_most, cap.window
        self._values = values
        self._positions = positions
        self._places: dict[Scalar, list[int]] = {}
        self._last: tuple[int, tuple[Scalar, ...]] = -1, ()

    def place(self, candidate: int, place: int) -> None:
        """Count ``candidate``, which is put at ``place``: once, however often its list repeats a value."""
        for value in set(self._values_of(candidate)):
            insort(self._places.setdefault(value, []), place)

    def remove(self, candidate: int, place: int) -> None:
        """Count ``candidate`` at ``place`` no more."""
        for value in set(self._values_of(candidate)):
            self._places[value].remove(place)

    def opens_at(self, candidate: int, place: int) -> int:
        """Return ``place``, below which all is filled, where ``candidate`` may stand there.

        Otherwise a later place, before which it may not stand anywhere unless something is removed; `NEVER` for none.
        """
        for value in self._values_of(candidate):
            places = self._places.get(value)
            if places and len(places) >= self._at_most:
                opening = self._opening(places, place)
                if opening > place:
                    return opening
        return place

    def _values_of(self, candidate: int) -> tuple[Scalar, ...]:
        # Who may stand at a place is mostly who is put there next.
        if self._last[0] != candidate:
            self._last = candidate, self._values[self._positions[candidate]]
        return self._last[1]

    def _opening(self, places: list[int], place: int) -> int:
        """Return the same for a value that stands at ``places``, ascending, enough of them to matter."""
        if not self._window:
            return NEVER
        if places[-1] < place:
            return max(place, places[-self._at_most] + self._window)
        # Pins stand ahead. Too many are at_most + 1 that lie within a window, this place among them.
        at = bisect_left(places, place)
        row = [*places[:at], place, *places[at:]]
        first, last = max(0, at - self._at_most), min(at, len(places) - self._at_most)
        is_crowded = any(row[start + self._at_most] - row[start] < self._window for start in range(first, last + 1))
        return place + is_crowded
