"""When to start again what did not live long."""

from __future__ import annotations

from collections import deque
from typing import Final

FIRST_SECONDS: Final = 0.1
MOST_SECONDS: Final = 10.0
STARTS_MAX: Final = 10
WINDOW_SECONDS: Final = 60.0


class BackOff:
    """What lived is started again at once; what did not after 0.1 s, doubling to 10 s, at most 10 times a minute."""

    def __init__(self) -> None:
        self._failures: deque[float] = deque(maxlen=STARTS_MAX)
        self.streak = 0
        """How many failures there were since something last lived."""
        self._due = 0.0

    def lived(self) -> None:
        """Say that what was started last did what it was for."""
        self.streak = 0

    def failed(self, now: float) -> None:
        """Say that what was started has ended before it did what it was for."""
        self.streak += 1
        self._failures.append(now)
        self._due = now + min(FIRST_SECONDS * 2.0 ** min(self.streak - 1, 30), MOST_SECONDS)
        if len(self._failures) == STARTS_MAX:
            self._due = max(self._due, self._failures[0] + WINDOW_SECONDS)

    def is_due(self, now: float) -> bool:
        """Return whether to start again."""
        return now >= self._due
