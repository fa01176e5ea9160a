"""The rows a request may return, and what each space has learned about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from annserve.domain.arrays import Rows
from annserve.domain.errors import InvalidArgumentError
from annserve.search.bands import Level
from annserve.search.points import Points

_GATHERED_BYTES_MAX = 1 << 28


class Restriction:
    """The allowed rows of a request. Keep it for the next request with the same rows: it gets faster by use."""

    def __init__(self, rows: npt.ArrayLike, count: int) -> None:
        """Allow ``rows``, in any order and repeated or not, of a space of ``count`` rows.

        Raises:
            InvalidArgumentError: a row outside 0 to ``count - 1``.
        """
        allowed = np.asarray(rows, dtype=np.int64).reshape(-1)
        if (allowed[1:] <= allowed[:-1]).any():
            allowed = np.unique(allowed)
        if len(allowed) and not 0 <= allowed[0] <= allowed[-1] < count:
            raise InvalidArgumentError.of("restriction", f"rows must be 0 to {count - 1}")
        self.rows: Rows = allowed
        self.count = count
        self.selections: dict[object, Selection] = {}
        """One for each space that has searched under this restriction."""

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """``(count,)``: whether a row is allowed."""
        mask = np.zeros(self.count, np.bool_)
        mask[self.rows] = True
        return mask

    def positions(self, rows: Rows) -> Rows:
        """Return where in `rows` those of ``rows`` stand that are allowed at all."""
        places = np.minimum(np.searchsorted(self.rows, rows), max(len(self.rows) - 1, 0))
        return places[self.rows[places] == rows] if len(self.rows) else places[:0]


@dataclass(slots=True, kw_only=True, eq=False)
class Selection:
    """What one space knows about one restriction, or about having none.

    Threads may share it: every field is only ever replaced by an equal or a better value.
    """

    kept_shares: npt.NDArray[np.float64]
    """For each norm band, the share of its rows that is allowed."""
    levels: dict[int, Level | None] = field(default_factory=dict)
    """The planner's choices so far, by the number of survivors needed."""
    gathered: Points | None = None
    """The allowed rows side by side, once they have been scanned twice."""
    scanned: bool = False

    def gather(self, points: Points, rows: Rows) -> Points | None:
        """Return the gathered points when another scan of ``rows`` makes them worth keeping, else None."""
        if self.gathered is None and self.scanned and 4 * points.dimension * len(rows) <= _GATHERED_BYTES_MAX:
            self.gathered = points.gather(rows)
        self.scanned = True
        return self.gathered
