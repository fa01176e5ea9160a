"""How the keeper goes about its work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSettings:
    """Plain values: `annserve.settings` reads them, with defaults and bounds, from the environment."""

    builds_at_once: int = 4
    """How many leaves are read from the store at the same time."""
    builds_waiting_max: int = 128
    """How many leaves may be read or wait for it; others have to do without until there are fewer."""
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
    flood_evaluations: int = 150_000
    """How often changes may have to be judged by leaves without a moment's rest before the same is done: a second."""
    recent_seconds: float = 300.0
    """A leaf used within this time is read again after it had to be dropped."""
    rebuilds_max: int = 64
    """How many leaves are read again then: those used last."""
    linger_seconds: float = 60.0
    """How long a snapshot's bitmaps are kept when its last worker has left."""
    hello_seconds: float = 5.0
    """How long a worker may take to say for which snapshot it comes."""
    beat_seconds: float = 0.25
    """How often a worker hears something, if only that all is as it was."""
    uses_seconds: float = 1.0
    """How often a worker says which leaves it used; a quarter of `ttl_seconds` where that is less."""
    keeper_silence_seconds: float = 2.0
    """How long a worker hears nothing before the keeper counts as gone."""
    reconnect_seconds: float = 0.1
    """How long a worker waits before it looks for a keeper that has gone."""
    room_bytes: int = 1 << 20
    """A worker that has so much to read yet is sent no bitmap it did not ask for."""
    backlog_bytes_max: int = 4 << 20
    """A worker that has more to read than that is cut off."""
