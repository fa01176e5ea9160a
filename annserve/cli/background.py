"""Letting whoever answers calls go first where a processor has to be shared."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

NICENESS: Final = 5
"""Of what gets about a third of the share of a thread that answers calls."""

LOADING_NICENESS: Final = 10
"""Of loading: a tenth of that share."""

_Result = TypeVar("_Result")


def stand_back(niceness: int = NICENESS) -> None:
    """Make this thread, and those that it starts, wait for others from now on."""
    if sys.platform == "linux":  # Elsewhere a thread has no niceness of its own.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def in_background(call: Callable[[], _Result], niceness: int) -> _Result:
    """Return what ``call`` returns, or raise what it raises, from a thread that stands back and has ended then.

    A process that is to fork has one thread again; and its own niceness, which it could raise, but never lower again.
    """
    with ThreadPoolExecutor(1, "annserve-background", initializer=stand_back, initargs=(niceness,)) as executor:
        return executor.submit(call).result()
