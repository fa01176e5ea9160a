"""The account of whom diversity, caps, pins and exploration moved, for `explain`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from annserve.domain.arrays import Scores
from annserve.domain.query import RuleEffect

DIVERSITY, EXPLORATION = "diversity", "exploration"
"""The names of the rules that are not listed in a placement's file."""


class Account:
    """Told of every place as it is filled.

    Diversity and caps move two at a time: whom they keep from a place, and who comes to stand there instead. Each loses
    one place to a rule: those who only close up behind it were not moved.
    """

    def __init__(self, cap_names: Sequence[str]) -> None:
        self._order = (DIVERSITY, *cap_names)
        self._lost: dict[str, set[int]] = {rule: set() for rule in self._order}
        self._moved: defaultdict[int, set[str]] = defaultdict(set)
        self._reserved: dict[int, str] = {}

    def passed(self, rule: str, candidate: int, others: Iterable[int]) -> None:
        """Tell that by ``rule``, diversity or a cap, ``candidate`` stands where one of ``others`` would."""
        losers = set(others) - self._lost[rule]
        if losers:
            self._lost[rule] |= losers
            for moved in (candidate, *losers):
                self._moved[moved].add(rule)

    def reserved(self, candidate: int, rule: str) -> None:
        """Tell that ``rule``, a pin or exploration, kept a place for ``candidate``."""
        self._reserved[candidate] = rule

    def effects(self, candidate: int, position: int, weights: Mapping[str, Scores]) -> tuple[RuleEffect, ...]:
        """Return what was done to a candidate, in order of application; ``weights`` have it at ``position``."""
        factors = {rule: float(weight[position]) for rule, weight in weights.items()}
        weighted = [RuleEffect(rule=rule, weight=factor) for rule, factor in factors.items() if factor != 1.0]
        rules = [rule for rule in self._order if rule in self._moved[candidate]]
        if candidate in self._reserved:
            rules.append(self._reserved[candidate])
        return (*weighted, *(RuleEffect(rule=rule) for rule in rules))
