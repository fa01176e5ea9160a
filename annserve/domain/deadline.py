"""The moment by which an answer must be there."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from annserve.domain.errors import DeadlineExceededError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock, in seconds; `check` it before each stage and chunk of work."""

    at: float = math.inf
    catalog_at: float = math.inf
    """Until when an answer waits for a catalogue that it can do without: then that counts as down."""

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline ``seconds`` from now."""
        return cls(time.monotonic() + seconds)

    def leaving_half(self) -> Deadline:
        """Return this deadline with half of what is left of it to wait for the catalogue in."""
        now = time.monotonic()
        return Deadline(self.at, min(self.catalog_at, now + max(self.at - now, 0.0) / 2))

    def check(self, stage: str) -> None:
        """Raise `DeadlineExceededError`, naming ``stage``, when the moment has passed."""
        if time.monotonic() >= self.at:
            raise DeadlineExceededError(stage)


NO_DEADLINE = Deadline()
