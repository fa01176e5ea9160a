"""How a server is to be run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from annserve.service.security import Security
from annserve.service.transport import TransportName


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Plain values: `annserve.settings` reads them, with defaults and bounds, from the environment."""

    address: str = "127.0.0.1:50051"
    """Host and port; port 0 takes a free one."""
    deadline_max_ms: int = 1_000
    """How long a call may take, whatever its own deadline."""
    drain_grace_ms: int = 10_000
    """How long calls under way may go on once the server stops."""
    calls_max: int = 512
    """How many calls may be under way; more are refused."""
    log_share: float = 0.0
    """Of calls that were answered, how many the log tells of, 0 to 1."""
    answer_ttl_ms: int = 10_000
    """How long an answer is kept, where there is a cache; 0 keeps none."""
    personal_answer_ttl_ms: int = 2_000
    """The same of an answer for a user."""
    reflection: bool = True
    transport: TransportName = "auto"
    """What brings the calls in: `transport.chosen` says which one ``auto`` is."""
    security: Security = field(default_factory=Security)
    socket_folder: Path | None = None
    """Where a transport makes sockets between its parts; the system's folder of temporary files without it."""
    is_worker: bool = False
    """Whether it is one of an instance: it shares the port with the others, and health is the instance's, which
    `Server.set_health` is told: one worker that stops for itself must not turn callers away from all."""
