"""How many processors this process may keep busy."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """Return how many there are to use, at least 1: those it may run on, and no more than its container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *_quotas()]))


def _quotas() -> list[int]:
    """Return the limits of this process's control groups, rounded up."""
    try:
        own = Path("/proc/self/cgroup").read_text().splitlines()[0].rpartition("::/")[2]
    except (OSError, IndexError):
        return []
    found = []
    for group in (_CGROUP / own, *(_CGROUP / own).parents):
        try:
            quota, period = (group / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            found.append(max(1, math.ceil(int(quota) / int(period))))
    return found
