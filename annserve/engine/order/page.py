"""Filling a page place by place, so that every rule holds of what is shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, compress

from annserve.engine.order.account import DIVERSITY, EXPLORATION, Account
from annserve.engine.order.crowding import Crowding
from annserve.engine.order.variety import Variety
from annserve.engine.order.weights import Flags
from annserve.placements.recipe import Pin


class Page:
    """Who stands where. Candidates are numbered best score first, places from 0; to be filled once."""

    def __init__(
        self, is_fresh: Flags, variety: Variety | None, caps: Sequence[Crowding], account: Account | None
    ) -> None:
        self._count, self._is_fresh = len(is_fresh), is_fresh.tolist()
        self._variety, self._caps, self._account = variety, caps, account
        self._is_free = bytearray(b"\1") * self._count
        self._sleeping: defaultdict[int, list[int]] = defaultdict(list)
        """Whom caps denied a place, by the place at which they are asked again: no longer free until then."""
        self._denied: list[tuple[str, int]] = []
        """Whom which cap denied the place being filled."""
        self.placed: list[int] = []
        self.pinned: list[int] = []
        """Places, as `explored`."""
        self.explored: list[int] = []

    def fill(self, place_count: int, pinned: Mapping[int, tuple[Pin, int]], exploration: AbstractSet[int]) -> None:
        """Fill the places, at most as many as there are candidates, until no one is allowed at the next."""
        if self._variety is None and not (self._caps or pinned or exploration):
            self.placed = list(range(place_count))
            return
        ahead = dict(sorted(pinned.items()))
        for place, (_, candidate) in ahead.items():
            self._hold(candidate, place)
        for place in range(place_count):
            if self._sleeping:
                self._wake(self._sleeping.pop(place, ()))
            if place in ahead:
                pin, candidate = ahead.pop(place)
                self._reserve(candidate, place, self.pinned, pin.name)
            else:
                chosen = self._choose(place, is_exploration=place in exploration)
                while chosen is None and ahead:
                    lowest, (_, candidate) = ahead.popitem()
                    self._let_go(candidate, lowest)
                    chosen = self._choose(place, is_exploration=place in exploration)
                if chosen is None:
                    return
                candidate = chosen
                self._hold(candidate, place)
            self.placed.append(candidate)
            if self._variety is not None and place + 1 < place_count:
                self._variety.place(candidate)

    def _choose(self, place: int, *, is_exploration: bool) -> int | None:
        if is_exploration:
            fresh = self._best(place, filter(self._is_fresh.__getitem__, self._by_preference()))
            if fresh is not None:
                self._reserve(fresh, place, self.explored, EXPLORATION)
                return fresh
        best = self._first(place)
        if best is None:
            best = self._best(place, self._by_preference())
        if best is not None and self._variety is not None and self._account is not None:
            self._account.passed(DIVERSITY, best, compress(range(best), self._is_free))
        return best

    def _first(self, place: int) -> int | None:
        """Return who adds the most, if caps allow it at ``place``, as they mostly do; None leaves it to `_best`."""
        if self._variety is None or self._denied:
            return None
        candidate = int(self._variety.gains.argmax())
        return candidate if self._is_free[candidate] and self._denial(candidate, place)[0] is None else None

    def _by_preference(self) -> Iterator[int]:
        """Yield those who may be placed, best first."""
        if self._variety is None:
            yield from compress(range(self._count), self._is_free)
            return
        gains = self._variety.gains
        best, count = int(gains.argmax()), self._is_free.count(1)
        if count:
            yield best
            # Sorted only where the best will not do.
            yield from (-gains).argsort(kind="stable")[1:count].tolist()

    def _best(self, place: int, preferred: Iterable[int]) -> int | None:
        """Return the first of those preferred whom caps allow at ``place``; let sleep whom they deny it."""
        for candidate in preferred:
            cap, opening = self._denial(candidate, place)
            if cap is None:
                if self._account is not None:
                    for rule, other in self._denied:
                        self._account.passed(rule, candidate, (other,))
                self._denied.clear()
                return candidate
            self._denied.append((cap.name, candidate))
            self._set_free(candidate, is_free=False)
            self._sleeping[opening].append(candidate)
        return None

    def _denial(self, candidate: int, place: int) -> tuple[Crowding | None, int]:
        """Return a cap that keeps ``candidate`` from ``place``, and until which."""
        for cap in self._caps:
            opening = cap.opens_at(candidate, place)
            if opening > place:
                return cap, opening
        return None, place

    def _wake(self, sleepers: Iterable[int]) -> None:
        for candidate in sleepers:
            self._set_free(candidate, is_free=True)

    def _reserve(self, candidate: int, place: int, places: list[int], rule: str) -> None:
        places.append(place)
        if self._account is not None:
            self._account.reserved(candidate, rule)

    def _set_free(self, candidate: int, *, is_free: bool) -> None:
        self._is_free[candidate] = is_free
        if self._variety is not None:
            (self._variety.put_back if is_free else self._variety.take)(candidate)

    def _hold(self, candidate: int, place: int) -> None:
        self._set_free(candidate, is_free=False)
        for cap in self._caps:
            cap.place(candidate, place)

    def _let_go(self, candidate: int, place: int) -> None:
        """Take a pin back. Caps may have denied others a place on its account, so all are asked again."""
        self._wake((candidate, *chain(*self._sleeping.values())))
        self._sleeping.clear()
        self._denied.clear()
        for cap in self._caps:
            cap.remove(candidate, place)
