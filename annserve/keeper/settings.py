"""How the keeper goes about its work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSettings:
    """Plain values: `annserve.settings` reads them, with defaults and bounds, from the environment."""

    builds_at_once: int = 4
    """How many leaves are read from the store at the same time."""
    build_seconds: float = 60.0
    """How long reading one leaf may take."""
    slice_seconds: float = 0.0003
    """How long background work holds the event loop before it gives it back."""
    ttl_seconds: float = 30.0
    """How old a bitmap grows before it is read again, where the store does not tell of changes."""
    silence_seconds: float = 1.0
    """How long the store may say nothing at all before the bitmaps count as stale."""
    retry_seconds: float = 0.25
    """How long to wait before asking a store again that did not answer, or that lost changes."""
    flood_changes: int = 5_000
    """How many changes may arrive without a moment's rest before leaves are dropped instead of kept up to date."""
    recent_seconds: float = 300.0
    """A leaf used within this time is read again after it had to be dropped."""
    rebuilds_max: int = 64
    """How many leaves are read again then: those used last."""
