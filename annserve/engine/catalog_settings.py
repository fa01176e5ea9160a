"""How the engine reads the catalogue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogSettings:
    """Plain values: `annserve.settings` reads them, with defaults and bounds, from the environment."""

    max_staleness_seconds: float = 600.0
    """How old what is known of the catalogue may be where a request says nothing of it."""
    wait_seconds: float = 0.05
    """How long an answer waits for what it can do without: histories and metadata."""
    history_items_max: int = 1_000
    """How many of a user's newest entries are read."""
    history_ttl_seconds: float = 2.0
    metadata_ttl_seconds: float = 30.0
    """How long metadata is kept where changes are not followed; where they are, until it changes."""
    distaste_events: frozenset[str] = frozenset({"disliked"})
    """Events that are no sign of taste: their items count as seen, and are not folded in."""
