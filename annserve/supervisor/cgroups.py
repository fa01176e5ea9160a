"""What the container around this process lets it have."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/")
_UNLIMITED_BYTES: Final = 1 << 60
"""From here on a limit is what version 1 calls none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """What the control groups around this process allow it; None where they set no limit, or there are none."""

    processors: float | None
    memory_bytes: int | None
    memory_free_bytes: int | None
    """What the fullest of them has left."""


def cgroup_limits(root: Path = _ROOT) -> CgroupLimits:
    """Return the narrowest limits of this process's control groups and those above, of version 2 or 1."""
    quotas = [quota for folder in _folders(root, "cpu") if (quota := _processors(folder)) is not None]
    limits = {folder: limit for folder in _folders(root, "memory") if (limit := _memory_bytes(folder)) is not None}
    return CgroupLimits(
        processors=min(quotas, default=None),
        memory_bytes=min(limits.values(), default=None),
        memory_free_bytes=min((max(limit - _used_bytes(folder), 0) for folder, limit in limits.items()), default=None),
    )


def usable_cpus() -> int:
    """Return how many processors there are to use, at least 1: those this process may run on, within its quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_limits().processors
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Return the folders that may state limits of ``controller``, from the process's own up to the mount."""
    groups = root / "sys" / "fs" / "cgroup"
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount = groups
        elif controller in controllers.split(","):
            mount = groups / controller
        else:
            continue
        # A container often sees its own group as the mount, whatever the path says: folders that are not here tell
        # nothing, and the mount itself is always looked at.
        folder = mount / path.lstrip("/")
        while folder != mount:
            yield folder
            folder = folder.parent
        yield mount


def _processors(folder: Path) -> float | None:
    if (words := _words(folder / "cpu.max")) is not None:
        quota, period = words
        return None if quota == "max" else int(quota) / int(period)
    quota_us, period_us = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    if quota_us is None or period_us is None or int(quota_us[0]) < 0:
        return None
    return int(quota_us[0]) / int(period_us[0])


def _memory_bytes(folder: Path) -> int | None:
    words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
    if words is None or words[0] == "max" or int(words[0]) >= _UNLIMITED_BYTES:
        return None
    return int(words[0])


def _used_bytes(folder: Path) -> int:
    """Return what is used without files' pages that nobody used lately, which the kernel gives up first."""
    words = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
    stated = _words(folder / "memory.stat") or []
    stat = dict(zip(stated[::2], stated[1::2], strict=False))
    given_up = int(stat.get("total_inactive_file") or stat.get("inactive_file") or 0)
    return max(int(words[0]) - given_up, 0) if words else 0


def _words(path: Path) -> list[str] | None:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return None
