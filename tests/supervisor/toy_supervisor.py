"""A supervisor of toy loaders: ``python toy_supervisor.py FOLDER ADDRESS WORKERS [KEEPER]``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from annserve.domain.errors import AnnserveError
from annserve.supervisor.generation import Generation
from annserve.supervisor.settings import SupervisorSettings
from annserve.supervisor.supervisor import Programs, Supervisor

FOLDER = Path(sys.argv[1])


def started(address: str, ops_address: str | None, generation: Generation) -> None:
    ready = {"address": address, "ops": ops_address, "items": generation.report["items"]}
    (FOLDER / "ready.new").write_text(json.dumps(ready))
    (FOLDER / "ready.new").rename(FOLDER / "ready")


def main() -> int:
    logging.basicConfig(level="INFO", format="%(relativeCreated)d %(message)s")
    settings = SupervisorSettings(
        workers=int(sys.argv[3]),
        address=sys.argv[2],
        ops_address="127.0.0.1:0",
        drain_grace_ms=5_000,
        runtime_parent=FOLDER,
        heartbeat_seconds_max=1.0,
        poll_seconds=0.1,
        start_seconds_max=3.0,
        abort_seconds=0.2,
    )
    loader = [sys.executable, str(Path(__file__).with_name("toy_loader.py")), str(FOLDER)]
    programs = Programs(loader=loader, keeper=sys.argv[4:] or None)
    try:
        return Supervisor(settings, programs, lambda: (FOLDER / "CURRENT").read_text().strip(), "1.2", started).run()
    except AnnserveError as error:
        sys.stderr.write(f"refused: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
