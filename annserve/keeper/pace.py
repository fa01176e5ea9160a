"""Long work in small steps on the event loop."""

from __future__ import annotations

import asyncio
import time

_TURNS = 8
"""How often the loop goes round between two slices: a look-up by pymongo takes many turns, and with one turn a slice it
waited for a slice at each."""


class Pace:
    """Gives the event loop back whenever a slice of time is used up."""

    def __init__(self, slice_seconds: float) -> None:
        self._slice_seconds = slice_seconds
        self._since = time.monotonic()

    async def breathe(self) -> None:
        """Let others run if it is their turn; call it after every step of at most about 0.1 ms."""
        if time.monotonic() - self._since >= self._slice_seconds:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            self._since = time.monotonic()

    def resume(self) -> None:
        """Begin a new slice, after having waited for something else."""
        self._since = time.monotonic()
