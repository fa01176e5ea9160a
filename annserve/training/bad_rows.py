"""Rows that cannot be used: left out, counted by reason, the first few remembered, too many refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from annserve.domain.errors import InputError, TooManyBadRowsError

_EXAMPLES_PER_REASON = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that was left out. Rows of a file are counted from 1; a header and blank lines are no rows."""

    path: Path
    row: int
    reason: str
    detail: str = ""
    """What must hold, where the reason alone does not say it."""

    def __str__(self) -> str:
        return f"{self.path.name} row {self.row}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReport:
    """What reading found."""

    row_count: int
    """Rows in the files, bad ones included."""
    bad_counts: Mapping[str, int]
    """Rows left out, by reason. A row counts once."""
    examples: Sequence[BadRow]
    """The first few of each reason."""

    @property
    def bad_count(self) -> int:
        """Rows left out, whatever the reason."""
        return sum(self.bad_counts.values())

    def summary(self) -> str:
        """Return each reason with its count and first rows: ``no user id: 2 (a.csv row 7, a.csv row 9)``."""
        return "; ".join(
            f"{reason}: {count:,} ({', '.join(str(bad) for bad in self.examples if bad.reason == reason)})"
            for reason, count in self.bad_counts.items()
        )

    def check(self, max_bad_share: float) -> None:
        """Refuse what was read when too little of it is of use.

        Raises:
            TooManyBadRowsError: more bad rows than ``max_bad_share`` of all rows.
            InputError: there are no rows, or none but bad ones.
        """
        if self.bad_count > max_bad_share * self.row_count:
            share = self.bad_count / self.row_count
            raise TooManyBadRowsError(
                f"{self.bad_count:,} of {self.row_count:,} rows ({share:.2%}) cannot be used, "
                f"more than the {max_bad_share:.2%} allowed (--max-bad-share): {self.summary()}",
                bad_count=self.bad_count,
                row_count=self.row_count,
                max_bad_share=max_bad_share,
            )
        if self.bad_count == self.row_count:
            raise InputError(f"no usable rows: {self.summary()}" if self.row_count else "there are no rows to read")


@dataclass(slots=True)
class BadRows:
    """The bad rows noted so far."""

    row_count: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[BadRow] = field(default_factory=list)

    def note(self, path: Path, rows: Sequence[int], reason: str, details: Sequence[str] = ()) -> None:
        """Count ``rows``; ``details`` are those of the first few, or none."""
        room = max(0, _EXAMPLES_PER_REASON - self.counts[reason])
        for row, detail in zip(rows[:room], [*details, *([""] * room)], strict=False):
            self.examples.append(BadRow(path=path, row=row, reason=reason, detail=detail))
        self.counts[reason] += len(rows)

    def report(self) -> ReadReport:
        """Return what was noted."""
        return ReadReport(row_count=self.row_count, bad_counts=dict(+self.counts), examples=tuple(self.examples))


@dataclass(slots=True)
class Sieve:
    """The rows of one chunk, of which each test leaves fewer: `good` marks those that passed every test so far."""

    path: Path
    rows: npt.NDArray[np.int64]
    bad_rows: BadRows
    good: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.good = np.ones(len(self.rows), dtype=bool)

    def refuse(self, bad: npt.NDArray[np.bool_], reason: str, detail_of: Callable[[int], str] = lambda _: "") -> None:
        """Leave out the rows where ``bad`` holds; those left out before keep their reason.

        Args:
            bad: Shape ``(n,)``.
            reason: One of few; details that differ from row to row belong in ``detail_of``.
            detail_of: What to say of the row at a position in this chunk.
        """
        positions = np.flatnonzero(bad & self.good)
        if len(positions):
            details = [detail_of(int(position)) for position in positions[:_EXAMPLES_PER_REASON]]
            self.bad_rows.note(self.path, self.rows[positions].tolist(), reason, details)
            self.good &= ~bad
