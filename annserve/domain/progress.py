"""How long work tells whoever watches how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by long work; `cli` draws a bar of it."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Say that ``done`` of ``total`` steps of ``stage`` are finished; None when the end is not known."""
        ...


def no_progress(stage: str, done: int, total: int | None) -> None:
    """Watch nothing."""
