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

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline ``seconds`` from now."""
        return cls(time.monotonic() + seconds)

    def check(self, stage: str) -> None:
        """Raise `DeadlineExceededError`, naming ``stage``, when the moment has passed."""
        if time.monotonic() >= self.at:
            raise DeadlineExceededError(stage)


NO_DEADLINE = Deadline()
