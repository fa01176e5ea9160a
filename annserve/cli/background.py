"""Letting whoever answers calls go first where a processor has to be shared."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

NICENESS: Final = 5
"""Of what gets about a third of the share of a thread that answers calls."""

SEARCHING_NICENESS: Final = 10
"""Of threads that search: a tenth of that share, or calls wait behind them that need no thread, or none any more."""

LOADING_NICENESS: Final = 10
"""Of loading: as much."""

_Result = TypeVar("_Result")


def stand_back(niceness: int) -> None:
    """Make this thread, and those that it starts, wait for others of its process from now on."""
    if sys.platform == "linux":  # Elsewhere a thread has no niceness of its own.
        os.nice(niceness)


def in_background(call: Callable[[], _Result], niceness: int) -> _Result:
    """Return what ``call`` returns, or raise what it raises, from a thread that stands back and has ended then.

    A process that is to fork has one thread again; and its own niceness, which it could raise, but never lower again.
    """
    with ThreadPoolExecutor(1, "annserve-background", initializer=stand_back, initargs=(niceness,)) as executor:
        return executor.submit(call).result()
