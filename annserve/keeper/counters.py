"""What the keeper has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class KeeperCounters:
    """Counts since the start, except where a field says otherwise."""

    builds: int = 0
    """Leaves read from the store, `present` included."""
    build_failures: int = 0
    build_seconds: float = 0.0
    """Wall time of `builds`, waiting for a turn not included."""
    changes: int = 0
    """Items the store told of; one change may stand for several of the same item."""
    unknown_items: int = 0
    """Those of `changes` whose item has no row in the snapshot."""
    flips: int = 0
    """Bits that a change turned over, of leaves and of `present`."""
    resyncs: int = 0
    """How often changes were lost and everything was read anew."""
    floods: int = 0
    """How often so many changes came at once that leaves were dropped."""
    items_without_row: int = 0
    """Drift: items of the catalogue that the snapshot lacks, when `present` was last read."""
    rows_without_item: int = 0
    """Drift: rows of the snapshot that the catalogue lacks, now."""
