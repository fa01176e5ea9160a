"""How a supervisor goes about its work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings:
    """Plain values: `annserve.settings` reads them, with defaults and bounds, from the environment."""

    workers: int = 1
    """How many processes answer, 1 to `annserve.supervisor.board.WORKERS_MAX`."""
    address: str = "127.0.0.1:50051"
    """Where they answer: host and port; port 0 takes a free one."""
    ops_address: str | None = "127.0.0.1:50053"
    """Where liveness, readiness and metrics are served over HTTP; None for nowhere."""
    drain_delay_ms: int = 0
    """How long calls are still taken after TERM, when health says NOT_SERVING already: as long as balancers take."""
    drain_grace_ms: int = 10_000
    """How long calls under way may go on when a worker drains."""
    runtime_parent: Path | None = None
    """Where the instance's folder is made; None for shared memory, or the temporary folder where that is too small."""
    runtime_bytes: int = 0
    """How much room the folder must have."""
    poll_seconds: float = 0.5
    """How often it is looked whether another snapshot is the live one."""
    tick_seconds: float = 0.05
    """How often the processes are looked at."""
    heartbeat_seconds_max: float = 5.0
    """A process that has not shown for so long that it lives is replaced."""
    load_seconds_max: float = 1_800.0
    """How long a loader may load."""
    start_seconds_max: float = 60.0
    """How long a worker may take from its fork until it answers, and the keeper until it first shows that it lives."""
    abort_seconds: float = 1.0
    """How long a process may take to say where it hung before it is killed."""
    fast_seconds: float = 1.0
    """How long calls under way may go on when the instance is told to stop at once."""
