"""Two things Linux lets a process say about its family, and the standard library does not."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, as PID 1 is of all."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(*, wanted: bool) -> None:
    """Have the kernel kill this process when the parent that started it dies, or no longer."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if wanted else 0)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
