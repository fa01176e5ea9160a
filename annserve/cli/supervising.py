"""The supervisor's process. It imports nothing that it does not need: it is the last to fall."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from annserve import __version__
from annserve.domain.errors import AnnserveError
from annserve.service.logs import configure_logs
from annserve.settings import Settings
from annserve.supervisor.cgroups import usable_cpus
from annserve.supervisor.generation import Generation
from annserve.supervisor.port import PortReservation
from annserve.supervisor.settings import SupervisorSettings
from annserve.supervisor.supervisor import Programs, Supervisor

GREETING = "_ANNSERVE_GREETING"
"""Says what to print when calls are answered, `ADDRESS_PLACE` in the place of the address."""
ADDRESS_PLACE = "{address}"

_ROOM_BYTES = 8 << 20
"""Sockets and metrics."""


def main() -> None:
    """Run an instance until a signal ends it."""
    # One thread of mathematics in each of several processes, and none before a fork: inherited, for it is read as numpy
    # and scipy are imported.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    settings = Settings()
    configure_logs("supervisor", settings.log_level, settings.log_format, in_thread=True)
    room_bytes = _ROOM_BYTES + (settings.shared_cache_bytes if settings.shared_cache else 0)
    supervisor = Supervisor(
        SupervisorSettings(
            workers=settings.workers or usable_cpus(),
            address=settings.address,
            ops_address=settings.ops_address,
            drain_delay_ms=settings.drain_delay_ms,
            drain_grace_ms=settings.drain_grace_ms,
            runtime_parent=settings.runtime_folder,
            runtime_bytes=room_bytes,
        ),
        Programs(loader=_program("loading"), keeper=_program("keeping")),
        lambda: current_id(settings.snapshots),
        __version__,
        _say_started,
    )
    try:
        # The keeper takes it later, when nobody looks any more whether it could. That of calls comes first: where two
        # instances meet, it is the one to name.
        PortReservation(settings.address).release()
        PortReservation(settings.admin_address, "--admin-address").release()
        code = supervisor.run()
    except AnnserveError as error:
        sys.stderr.write(f"annserve: {error}\n")
        sys.exit(1)
    sys.stderr.write("stopped\n")
    sys.exit(code)


def current_id(snapshots: Path) -> str | None:
    """Return which snapshot ``CURRENT`` names; `SnapshotStore`, which looks closer, needs half of the program."""
    try:
        lines = (snapshots / "CURRENT").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return None
    return lines[0] if lines else None


def _program(module: str) -> list[str]:
    return [sys.executable, "-m", f"annserve.cli.{module}"]


def _say_started(address: str, ops_address: str | None, generation: Generation) -> None:
    report = generation.report
    count = generation.serving_count
    sys.stderr.write(
        f"serving {generation.snapshot_id}: {report['items']:,} items, {report['users']:,} users, on {address}\n"
        f"{count} worker{'s' if count > 1 else ''}; probes and metrics on http://{ops_address}\n"
        f"{os.environ.get(GREETING, '').replace(ADDRESS_PLACE, address)}"
    )
    sys.stderr.flush()


if __name__ == "__main__":
    main()
