"""The page that a placement fills: rows from several sources, each once, and who put them there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from annserve.domain.arrays import Rows
from annserve.domain.query import RuleEffect, Source


class Page:
    """Takes rows until it is full."""

    def __init__(self, size: int, excluded_rows: Rows) -> None:
        """Take ``size`` rows, none of ``excluded_rows``."""
        self._size = size
        self._excluded_rows = excluded_rows
        self.rows: list[int] = []
        self.scores: list[float] = []
        self.sources: list[Source] = []
        self.steps: list[int] = []
        """See `domain.query.Answer.fallback_steps`."""
        self.effects: list[Sequence[RuleEffect]] = []

    @property
    def missing_count(self) -> int:
        """How many rows are wanted still."""
        return self._size - len(self.rows)

    def exclude(self, rows: Rows) -> None:
        """Take none of ``rows`` from now on."""
        self._excluded_rows = np.concatenate([self._excluded_rows, rows])

    @property
    def taken_rows(self) -> Rows:
        """What whoever fills it further must leave out."""
        return np.concatenate([self._excluded_rows, np.array(self.rows, np.int64)])

    def add(
        self,
        rows: Sequence[int],
        scores: Sequence[float],
        sources: Source | Sequence[Source],
        step: int = 0,
        effects: Sequence[Sequence[RuleEffect]] = (),
    ) -> None:
        """Put further rows below, as many as fit; ``effects`` are of each, or empty."""
        count = min(self.missing_count, len(rows))
        self.rows += rows[:count]
        self.scores += scores[:count]
        self.sources += [sources] * count if isinstance(sources, Source) else sources[:count]
        self.steps += [step] * count
        self.effects += effects[:count] if effects else [()] * count
