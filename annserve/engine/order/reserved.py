"""Places that do not go to the best candidate: pins, and the share of fresh items. Places count from 0."""

from __future__ import annotations

import random
from collections.abc import Sequence

from annserve.domain.arrays import Rows
from annserve.placements.recipe import Pin


def pinned_places(pins: Sequence[tuple[Pin, int]], order: Rows, place_count: int) -> dict[int, tuple[Pin, int]]:
    """Return who is pinned to which place: the pin, and where ``order`` has its candidate.

    The first of several pins to one place, or of one candidate, holds. A candidate that is not in ``order`` was taken
    out; one pinned below the last place is a candidate like any other.

    Args:
        pins: With the position of each one's candidate.
        order: Positions of the candidates that are left.
        place_count: How many places there are to fill.
    """
    pinned: dict[int, tuple[Pin, int]] = {}
    positions: set[int] = set()
    for pin, position in pins:
        place = pin.rank - 1
        found = (order == position).nonzero()[0]
        if place < place_count and found.size and place not in pinned and position not in positions:
            pinned[place] = (pin, int(found[0]))
            positions.add(position)
    return pinned


def exploration_places(free: Sequence[int], place_count: int, share: float, seed: int) -> frozenset[int]:
    """Return the places for fresh items: ``share`` of ``place_count``, as far as there are ``free`` ones.

    A share that is no whole number of places is rounded up or down, by chance, so that its mean over many seeds is
    ``share``. The same seed gives the same places.
    """
    if share == 0.0:
        return frozenset()
    chance = random.Random(seed)  # noqa: S311 - chance, not secrecy
    whole, rest = divmod(share * place_count, 1.0)
    count = int(whole) + (chance.random() < rest)
    return frozenset(chance.sample(free, min(count, len(free))))
