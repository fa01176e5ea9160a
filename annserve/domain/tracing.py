"""Who is told of the stages of the call that is answered, where it is traced."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class Trace(Protocol):
    """Takes the stages of one call, from any thread."""

    def stage(self, name: str, seconds: float) -> None:
        """Note that a stage has just ended, which took so long."""
        ...

    def note(self, name: str, value: str | float) -> None:
        """Note what is true of the whole call."""
        ...


current_trace: ContextVar[Trace | None] = ContextVar("annserve_trace", default=None)
"""None, as for most calls, where nobody is told."""
