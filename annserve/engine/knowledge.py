"""What is known outside the snapshot when a question is answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from annserve.domain.arrays import Rows
from annserve.search.restriction import Restriction

NO_ROWS: Final[Rows] = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What the catalogue says of the items and of the user of one question."""

    allowed: Restriction | None = None
    """The items that are in the catalogue and pass the question's filter; None for every item of the snapshot."""
    seen_rows: Rows = field(default_factory=lambda: NO_ROWS)
    """What the user dealt with."""
    taste_rows: Rows = field(default_factory=lambda: NO_ROWS)
    """The part of it that speaks of her taste, oldest first, where it is to be folded in: it knows more than the
    snapshot does."""
    excluded_rows: Rows = field(default_factory=lambda: NO_ROWS)
    """What must not be returned whatever the question says of seen items; repeats count once."""


NOTHING: Final = Knowledge()
