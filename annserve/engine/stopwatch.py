"""How long each stage of one answer took."""

from __future__ import annotations

import time

from annserve.domain.tracing import current_trace


class Stopwatch:
    """Collects microseconds per stage, and tells who traces the call; a lap ends one stage and begins the next."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._laps: list[tuple[str, float]] = []
        self._trace = current_trace.get()

    def lap(self, stage: str) -> None:
        """End ``stage``."""
        now = time.perf_counter()
        self._laps.append((stage, (now - self._last) * 1e6))
        if self._trace is not None:
            self._trace.stage(stage, now - self._last)
        self._last = now

    @property
    def laps(self) -> tuple[tuple[str, float], ...]:
        """The stages so far and their microseconds, in order."""
        return tuple(self._laps)
