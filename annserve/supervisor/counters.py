"""What is counted in the supervisor, for `/metrics`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Counters:
    """Since the instance was started; nothing of it falls."""

    exits: Counter[str] = field(default_factory=Counter)
    """Workers that ended, by cause: ``done``, ``failed``, ``hung``, ``lost``, ``not_forked``, the name of a signal."""
    swaps: Counter[str] = field(default_factory=Counter)
    """Changes of snapshots that ended, by outcome: ``succeeded``, ``refused``."""
    boot_failures: int = 0
    """Workers that ended before they served."""
