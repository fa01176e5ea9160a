"""How long each stage of one answer took."""

from __future__ import annotations

import time


class Stopwatch:
    """Collects microseconds per stage; a lap ends one stage and begins the next."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._laps: list[tuple[str, float]] = []

    def lap(self, stage: str) -> None:
        """End ``stage``."""
        now = time.perf_counter()
        self._laps.append((stage, (now - self._last) * 1e6))
        self._last = now

    @property
    def laps(self) -> tuple[tuple[str, float], ...]:
        """The stages so far and their microseconds, in order."""
        return tuple(self._laps)
